"""Compiled loops over series: sums of days, anomalies, ranks and bootstrap replicates.

Every series is worked on by itself and in the order of its days, so a result does not depend on
which series are computed together. All loops release the interpreter lock.
"""

import numba
import numpy as np

N_SUMS = 8
"""Sums of a series: n, x, y, xx, yy, xy, d, dd, in the order of `metrics.Statistics`."""


@numba.njit(cache=True, nogil=True)
def sums(x, y, mask, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sums over the days of a mask, shape (series, 8), of float64 and bool (series, time)."""
    n_series, n_days = x.shape
    result = np.zeros((n_series, N_SUMS))
    for s in range(n_series):
        n = sx = sy = xx = yy = xy = sd = dd = 0.0
        for t in range(n_days):
            if mask[s, t]:
                a, b = x[s, t] - offset, y[s, t] - offset
                d = a - b
                n += 1.0
                sx += a
                sy += b
                xx += a * a
                yy += b * b
                xy += a * b
                sd += d
                dd += d * d
        result[s] = (n, sx, sy, xx, yy, xy, sd, dd)
    return result


@numba.njit(cache=True, nogil=True)
def departures(values, mask, half, min_days):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Departures from the mean of ``half`` days on either side, and where they exist."""
    n_series, n_days = values.shape
    result = np.zeros((n_series, n_days))
    exists = np.zeros((n_series, n_days), dtype=np.bool_)
    total = np.zeros(n_days + 1)
    count = np.zeros(n_days + 1, dtype=np.int64)
    for s in range(n_series):
        for t in range(n_days):
            known = mask[s, t]
            total[t + 1] = total[t] + (values[s, t] if known else 0.0)
            count[t + 1] = count[t] + known
        for t in range(n_days):
            if not mask[s, t]:
                continue
            first, last = max(t - half, 0), min(t + half + 1, n_days)
            n = count[last] - count[first]
            if n >= min_days:
                result[s, t] = values[s, t] - (total[last] - total[first]) / n
                exists[s, t] = True
    return result, exists


@numba.njit(cache=True, nogil=True)
def mean_ranks(values, order, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Ranks 1, 2, ... of the first ``number`` places of each order, ties sharing their mean."""
    result = np.zeros(values.shape)
    for s in range(values.shape[0]):
        n = number[s]
        first = 0
        while first < n:
            value = values[s, order[s, first]]
            last = first + 1
            while last < n and values[s, order[s, last]] == value:
                last += 1
            for place in range(first, last):
                result[s, order[s, place]] = (first + last + 1) / 2
            first = last
    return result


@numba.njit(cache=True, nogil=True)
def replicate_sums(x, y, mask, draws, block_days, min_blocks, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sums of every replicate of every series, shape (series, replicates, 8).

    ``draws`` of shape (blocks, replicates) are uniform numbers; block i of a replicate begins at
    first day + floor(draw · (span - block_days + 1)), where the span reaches from the first to the
    last day of the series' mask. Zero where the span is shorter than ``min_blocks`` blocks.
    """
    n_series, n_days = x.shape
    n_replicates = draws.shape[1]
    result = np.zeros((n_series, n_replicates, N_SUMS))
    running = np.zeros((n_days + 1, N_SUMS))
    block = np.zeros((n_days + 1, N_SUMS))
    for s in range(n_series):
        first, last = n_days, -1
        for t in range(n_days):
            for k in range(N_SUMS):
                running[t + 1, k] = running[t, k]
            if mask[s, t]:
                first, last = min(first, t), t
                a, b = x[s, t] - offset, y[s, t] - offset
                d = a - b
                running[t + 1, 0] += 1.0
                running[t + 1, 1] += a
                running[t + 1, 2] += b
                running[t + 1, 3] += a * a
                running[t + 1, 4] += b * b
                running[t + 1, 5] += a * b
                running[t + 1, 6] += d
                running[t + 1, 7] += d * d
        span = last - first + 1
        if span < max(min_blocks, 1) * block_days:
            continue
        n_starts = span - block_days + 1
        for i in range(n_starts):
            for k in range(N_SUMS):
                block[i, k] = running[first + i + block_days, k] - running[first + i, k]
        for i in range(-(-span // block_days)):
            for r in range(n_replicates):
                start = int(draws[i, r] * n_starts)
                for k in range(N_SUMS):
                    result[s, r, k] += block[start, k]
    return result
