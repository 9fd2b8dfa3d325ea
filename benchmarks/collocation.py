"""Triple collocation: our kernel against pytesmo's loop over pixels, one thread each.

Run with ``OMP_NUM_THREADS=1 python benchmarks/collocation.py [pixels] [repeats]``. Both get the
same float32 arrays of 3,650 days with gaps, and must give the same error variances.
``python benchmarks/collocation.py jobs [years] [turns]``: whole jobs against reading alone.
"""

import sys
from collections.abc import Callable
from time import perf_counter

import collocation_jobs
import numpy as np
from pytesmo.metrics import tcol_metrics

from deepprofile.collocation import accumulate, block_bootstrap, draw_blocks, finish

N_DAYS = 3650
BOOTSTRAP_PIXELS = 200


def make_series(n_pixels: int) -> list[np.ndarray]:
    """Three products of one signal, a tenth of each missing, shape (days, pixels)."""
    generator = np.random.default_rng(0)
    signal = generator.normal(0.25, 0.05, (N_DAYS, n_pixels))
    series = [
        (signal + generator.normal(0.0, error, signal.shape)).astype(np.float32)
        for error in (0.02, 0.03, 0.04)
    ]
    for values in series:
        values[generator.random(values.shape) < 0.1] = np.nan
    return series


def by_pixel(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Error variances (3, pixels) by pytesmo, pixel by pixel."""
    result = np.empty((3, x.shape[1]))
    for p in range(x.shape[1]):
        days = np.isfinite(x[:, p]) & np.isfinite(y[:, p]) & np.isfinite(z[:, p])
        _, deviation, beta = tcol_metrics(x[days, p], y[days, p], z[days, p])
        result[:, p] = np.square(deviation / beta)
    return result


def read_once(series: list[np.ndarray]) -> int:
    """Touch every byte once: the least that any method must do."""
    return sum(int(values.view(np.int64).sum()) for values in series)


def microseconds(function: Callable[[], object], n_pixels: int, repeats: int) -> float:
    """Best time of several runs in microseconds a pixel, after one run to compile."""
    function()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return min(times) / n_pixels * 1e6


def main(n_pixels: int = 2000, repeats: int = 7) -> None:
    """Time, compare and print."""
    series = make_series(n_pixels)
    pixel_major = [np.ascontiguousarray(values.T) for values in series]
    turned = [values.T for values in pixel_major]
    expected = by_pixel(*turned)
    for layout in (series, turned):
        np.testing.assert_allclose(finish(accumulate(*layout)).error_variance, expected, rtol=1e-6)

    ours = microseconds(lambda: finish(accumulate(*series)), n_pixels, repeats)
    ours_turned = microseconds(lambda: finish(accumulate(*turned)), n_pixels, repeats)
    theirs = microseconds(lambda: by_pixel(*series), n_pixels, 1)
    theirs_turned = microseconds(lambda: by_pixel(*turned), n_pixels, 1)
    floor = microseconds(lambda: read_once(series), n_pixels, repeats)
    some = [values[:, :BOOTSTRAP_PIXELS] for values in series]
    blocks = draw_blocks(N_DAYS, replicates=200)
    errors = microseconds(
        lambda: block_bootstrap(*some, np.arange(N_DAYS), blocks), BOOTSTRAP_PIXELS, 3
    )

    n_bytes = sum(values.nbytes for values in series)
    print(f"{n_pixels} pixels x {N_DAYS} days x 3 products, float32: {n_bytes / 1e6:.0f} MB")
    print("microseconds a pixel    time-major  pixel-major")
    print(f"  deepprofile           {ours:10.1f}  {ours_turned:11.1f}")
    print(f"  pytesmo, loop         {theirs:10.1f}  {theirs_turned:11.1f}")
    print(f"  ratio                 {theirs / ours:10.1f}  {theirs_turned / ours_turned:11.1f}")
    print(f"  bootstrap, 200        {errors:10.1f}")
    print(
        f"memory: {n_bytes / n_pixels / 1e3:.1f} kB a pixel read once, reading alone takes "
        f"{floor:.1f} us a pixel: the kernel is at {floor / ours:.0%} of that speed "
        f"({n_bytes / n_pixels / ours / 1e3:.1f} GB/s)"
    )
    print("the error variances of all agree within a relative 1e-6")


if __name__ == "__main__":
    if sys.argv[1:2] == ["jobs"]:
        collocation_jobs.main(*map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
