"""Plans, and the time that they would take, as tables."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepprofile.cluster.base import ClusterSpec
from deepprofile.rates import UNITS, WHOLE_MACHINE, Rates, this_machine
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Plan
from deepprofile.stages.sites import Estimate, estimate, n_cores, sites_of, this_site
from deepprofile.store.memory import size_text, too_large

SCALED = ("predict", "collocate", "train")
"""Stages whose time on other machines is shown."""
_DURATIONS = (("s", 1, 120), ("min", 60, 120), ("h", 3600, 72), ("days", 86400, float("inf")))
"""Units of time, the seconds of each, and up to how many of them it is used."""
_SHORT = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def render_plans(
    recipe: Recipe,
    plans: Mapping[str, Plan],
    rates: Rates | None,
    source: Path,
    cluster: tuple[str, ClusterSpec] | None = None,
) -> RenderableType:
    """What every stage would do, and how long it would take.

    The memory is what a worker takes with one job: the least, and the most that is of use.

    Args:
        recipe: the recipe.
        plans: plan of each stage by its name, in order.
        rates: measured rates, if there are any.
        source: the file that holds them, or would hold them.
        cluster: name of a cluster and its specification, to be told whether its workers have the
            memory.
    """
    known = [] if cluster is None else [Text(_workers(plans, *cluster))]
    daily = [Text(_append(name, plan)) for name, plan in plans.items() if plan.append_written]
    if rates is None:
        hint = f"There are no rates in {source}: run `deepprofile benchmark` once to see times."
        return Group(_stages(recipe, plans, None), *known, *daily, Text(hint))
    parts: list[RenderableType] = [_stages(recipe, plans, rates), *known, *daily]
    parts.append(_elsewhere(plans, rates))
    return Group(*parts, Text(_origin(rates, source) + _absent(plans, rates)))


def render_rates(rates: Rates) -> Table:
    """Measured rates: time of a unit of work, and units a second of all cores together."""
    machine = rates.machine
    title = f"{n_cores(machine.cores)}, {machine.processor}, PyTorch {machine.torch}"
    table = Table(title=title, title_justify="left")
    table.add_column("work")
    table.add_column("unit")
    for heading in ("one core alone", "all cores busy", "units a second", machine.gpu or "GPU"):
        table.add_column(heading, justify="right")
    for kind, busy in rates.core.items():
        at_once = 1 if kind in WHOLE_MACHINE else machine.cores
        table.add_row(
            kind,
            UNITS.get(kind, ""),
            _unit_time(rates.alone.get(kind)),
            _unit_time(busy),
            f"{at_once / busy:,.0f}",
            _unit_time(rates.gpu.get(kind)),
        )
    return table


def _stages(recipe: Recipe, plans: Mapping[str, Plan], rates: Rates | None) -> Table:
    table = Table(title=f"{recipe.name}: {recipe.period.start} to {recipe.period.end}")
    for heading in ("stage", "jobs", "read", "written", "memory of a worker", "time", "note"):
        table.add_column(heading, justify="left" if heading in ("stage", "note") else "right")
    for name, plan in plans.items():
        table.add_row(
            name,
            f"{plan.jobs:,}",
            size_text(plan.bytes_read),
            size_text(plan.bytes_written),
            _memory(plan),
            "" if rates is None else _time(estimate(plan, rates, this_site(rates))),
            plan.note,
        )
    return table


def _workers(plans: Mapping[str, Plan], name: str, spec: ClusterSpec) -> str:
    """Which stages fit into the workers of a cluster."""
    memory, threads = spec.worker_memory, spec.threads_per_worker
    if memory is None:
        return (
            f"Cluster {name} does not say how much memory a worker has: whether the stages fit is "
            "known when the first worker has joined, and before the first job."
        )
    needs = [plan.need(stage) for stage, plan in plans.items()]
    large = too_large(needs, memory.size, threads)
    fitting = ", ".join(need.what for need in needs if need not in large)
    count = f"{threads} thread{'' if threads == 1 else 's'}"
    lines = [
        f"A worker of cluster {name} has {size_text(memory.size)} of memory ({memory.given}) and "
        f"{count}. Stages that fit: {fitting or 'none'}."
    ]
    lines += [f"Does not fit: {need.text(threads)}." for need in large]
    if large:
        lines.append(
            "A command that runs them stops before anything is started. Give the file "
            f"{memory.more}, or run what does not fit on another cluster."
        )
    return "\n".join(lines)


def _append(name: str, plan: Plan) -> str:
    """What a day more takes."""
    return (
        f"A day more of {name} reads {size_text(plan.append_read)} and writes the last shard of "
        "each tile with land anew: at most "
        f"{size_text(plan.append_written)}, which is on the last day of a block and of values "
        "that can't be compressed."
    )


def _elsewhere(plans: Mapping[str, Plan], rates: Rates) -> Table:
    """Time of the stages that compute, here and on larger machines."""
    table = Table(title="time on", title_justify="left")
    for heading in ("stage", "where", "time", "most of it", "rests on"):
        table.add_column(heading, justify="right" if heading == "time" else "left")
    for name in (name for name in SCALED if name in plans):
        for site in sites_of(rates, name):
            found = estimate(plans[name], rates, site)
            table.add_row(name, site.name, _time(found), found.bound, site.basis)
    return table


def _origin(rates: Rates, source: Path) -> str:
    machine, measured = rates.machine, rates.measured
    text = (
        f"Rates: {source}, measured {measured:%Y-%m-%d} with all of {n_cores(machine.cores)} busy "
        f"({machine.processor}, PyTorch {machine.torch}), for the paper's network. Cubes were read "
        "from pages in memory and written to a local disk: reading from a disk or an object store "
        "may take longer. Starting workers and jobs comes on top."
    )
    here = this_machine()
    if (here.processor, here.cores) != (machine.processor, machine.cores):
        text += f" This machine is another one: {n_cores(here.cores)}, {here.processor}."
    return text


def _absent(plans: Mapping[str, Plan], rates: Rates) -> str:
    """What to do about rates that a file written by an earlier version has not."""
    needed = {kind for plan in plans.values() for kind, units in plan.work.items() if units > 0}
    kinds = [kind for kind in UNITS if kind in needed and kind not in rates.core]
    if not kinds:
        return ""
    return f" The file has no rate of {', '.join(kinds)}: run `deepprofile benchmark` again."


def _time(found: Estimate) -> str:
    if found.seconds is None:
        return f"not measured: {', '.join(found.missing)}" if found.missing else "not measured"
    return _duration(found.seconds)


def _duration(seconds: float) -> str:
    unit, size = next((u, s) for u, s, most in _DURATIONS if seconds < most * s)
    value = seconds / size
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def _unit_time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    unit, size = next((u, s) for u, s in _SHORT if seconds >= s or u == "ns")
    return f"{seconds / size:.3g} {unit}"


def _memory(plan: Plan) -> str:
    least = plan.worker_memory + plan.job_memory
    most = plan.worker_memory + plan.most_memory
    return size_text(least) if most <= least else f"{size_text(least)} to {size_text(most)}"
