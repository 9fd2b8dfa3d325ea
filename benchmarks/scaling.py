"""How the system grows: with processes, with the number of jobs, and on paper with GPUs.

    python benchmarks/scaling.py strong   # one and two processes on the stage predict
    python benchmarks/scaling.py jobs     # driver and scheduler under the global ten-year list
    python benchmarks/scaling.py model    # 1 to 256 GPUs, from measured rates

Each prints its figures; with ``--figure FILE`` it also draws them.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import scaling_jobs
import scaling_model
import scaling_strong
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepprofile.cluster import cores
from deepprofile.rates import load_rates, rates_path

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LABELS = {
    "cores": "cores: read, turn, write",
    "gpu": "GPU: engine",
    "store": "store",
    "scheduler": "scheduler",
}


def strong(options: argparse.Namespace) -> None:
    """Processes."""
    found = scaling_strong.measure(options.processes, options.turns)
    scaling_strong.report(found)
    if options.figure:
        figure, axes = _figure("worker processes", "times as fast as one")
        counts = sorted(found)
        first = median(found[counts[0]])
        axes.plot(counts, counts, "--", color="0.6", label="ideal")
        axes.plot(counts, [first / median(found[n]) for n in counts], "o-", label="stage predict")
        axes.set_xticks(counts)
        _save(figure, axes, options.figure)


def jobs(options: argparse.Namespace) -> None:
    """Jobs."""
    loads = []
    for share in options.shares:
        loads.append(scaling_jobs.measure(share, options.seconds, options.workers, options.threads))
        print(loads[-1].line, flush=True)
    if options.figure:
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        counts = [load.jobs for load in loads]
        for name, seconds, memory in (
            ("driver", [x.driver for x in loads], [x.driver_memory for x in loads]),
            ("scheduler", [x.scheduler for x in loads], [x.scheduler_memory for x in loads]),
        ):
            left.plot(
                counts,
                [1e3 * s / n for s, n in zip(seconds, counts, strict=True)],
                "o-",
                label=name,
            )
            grown = [(after - before) / scaling_jobs.MEBIBYTE for before, after in memory]
            right.plot(counts, grown, "o-", label=name)
        left.set(xscale="log", xlabel="jobs", ylabel="processor time of a job (ms)", ylim=(0, None))
        right.set(xscale="log", xlabel="jobs", ylabel="memory gained (MiB)", ylim=(0, None))
        _save(figure, left, options.figure)


def model(options: argparse.Namespace) -> None:
    """GPUs."""
    found = scaling_model.measure(load_rates(options.rates or rates_path()), GPUS)
    scaling_model.report(found)
    if options.figure:
        _draw_model(found, options.figure)


def _draw_model(found: Mapping[int, Mapping[str, float]], path: Path) -> None:
    figure, axes = _figure("GPUs, each fed by 16 cores", "seconds for ten years of the globe")
    counts = sorted(found)
    for side in LABELS:
        axes.plot(counts, [found[n][side] for n in counts], "o-", label=LABELS[side], markersize=3)
    total = [max(found[n].values()) for n in counts]
    axes.plot(counts, total, color="black", linewidth=6, alpha=0.15, label="the slowest decides")
    axes.set(xscale="log", yscale="log", ylim=(1, 2e4))
    axes.set_xticks(counts, list(map(str, counts)))
    axes.minorticks_off()
    _save(figure, axes, path, "upper right")


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path, place: str = "best") -> None:
    axes.legend(frameon=False, loc=place)
    for each in figure.axes:
        each.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    print(f"figure: {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--figure", type=Path)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("strong")
    command.add_argument("--processes", type=int, nargs="+", default=sorted({1, cores()}))
    command.add_argument("--turns", type=int, default=3)
    command.set_defaults(run=strong)
    command = commands.add_parser("jobs")
    command.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    command.add_argument("--seconds", type=float, default=0.01, help="sleep of a job")
    command.add_argument("--workers", type=int, default=2, help="processes")
    command.add_argument("--threads", type=int, default=4, help="of each")
    command.set_defaults(run=jobs)
    command = commands.add_parser("model")
    command.add_argument("--rates", type=Path, help="file of `deepprofile benchmark`")
    command.set_defaults(run=model)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
