"""Where a stage could run, and how long its work would take there."""

from dataclasses import dataclass

from deepprofile.cluster import cores
from deepprofile.rates import Rates, this_machine
from deepprofile.stages.context import Plan

NODE_CORES = 16
"""Cores of the node to which measured rates are scaled, and that feed a GPU."""
GPUS = (1, 8, 64)
"""Numbers of GPUs for which the time of the stage predict is told."""
OPERATIONS = 0.6e6
"""Floating-point operations of the engine for a cell-day of the paper's network."""
ASSUMED_GPU = 8e12
"""Operations a second of a GPU that was not measured: 40 % of an A100's peak in float32."""
NETWORK = 1.25e9
"""Bytes a second between a node and the store that are assumed: 10 Gbit/s."""
STORE = 5e9
"""Bytes a second that a store is assumed to give and take, however many nodes ask."""
READ, WRITTEN = 0.27, 0.5
"""Bytes in the store of a raw byte of forcing that is read and of coefficients that are written, in
tiles of which 56 % are land (measured on the demo Earth: 0.29 and 0.53; on fields with the texture
of real ones 0.26)."""
SCHEDULER = 4e-3
"""Seconds of driver and scheduler for a job, whoever runs it (docs/scaling.md)."""


@dataclass(frozen=True)
class Estimate:
    """Time of a stage.

    Attributes:
        seconds: of all jobs; None where a rate is not known.
        bound: kind of work that takes most of it.
        missing: kinds of work whose rates are not known.
    """

    seconds: float | None
    bound: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """Where a stage could run.

    Attributes:
        name: for the table.
        basis: what the time rests on: measured, scaled or assumed.
        cores: cores that work on jobs.
        engine: seconds of a cell-day on all GPUs together; None without one.
        store: bytes a second between store and workers; None if the rates hold it already.
        scheduler: seconds of driver and scheduler for a job; 0 if that does not count.
    """

    name: str
    basis: str
    cores: int
    engine: float | None = None
    store: float | None = None
    scheduler: float = 0.0


def sides(plan: Plan, rates: Rates, site: Site) -> dict[str, dict[str, float]]:
    """Seconds of each kind of work, by who does it: ``cores``, ``gpu``, ``store``, ``scheduler``.

    They work at the same time, so the slowest of them decides. A core does one job at a time, so
    the jobs take as many rounds as the cores need.

    Raises:
        KeyError: if the rate of a kind of work is not known.
    """
    work = {kind: units for kind, units in plan.work.items() if units > 0}
    share = -(-plan.jobs // site.cores) / plan.jobs if plan.jobs else 0.0
    found: dict[str, dict[str, float]] = {"cores": {}, "gpu": {}, "store": {}, "scheduler": {}}
    for kind, units in work.items():
        if kind == "engine" and site.engine is not None:
            found["gpu"][kind] = units * site.engine
        else:
            found["cores"][kind] = units * rates.core[kind] * share
    if site.store is not None:
        moved = plan.bytes_read * READ + plan.bytes_written * WRITTEN
        found["store"]["store"] = moved / site.store
    if site.scheduler:
        found["scheduler"]["scheduler"] = plan.jobs * site.scheduler
    return {side: parts for side, parts in found.items() if parts}


def estimate(plan: Plan, rates: Rates, site: Site) -> Estimate:
    """Time of a stage's jobs on a site, see `sides`.

    Training is one job that uses all cores; it is not taken to be any quicker with more cores than
    were measured.
    """
    if plan.jobs == 0:
        return Estimate(0.0)
    try:
        found = sides(plan, rates, site)
    except KeyError:
        work = [kind for kind, units in plan.work.items() if units > 0]
        known = {*rates.core, *(["engine"] if site.engine is not None else [])}
        return Estimate(None, missing=tuple(kind for kind in work if kind not in known))
    if not found:
        return Estimate(None)
    slowest = max(found.values(), key=lambda parts: sum(parts.values()))
    return Estimate(sum(slowest.values()), max(slowest, key=slowest.__getitem__))


def sites_of(rates: Rates, stage: str) -> list[Site]:
    """The sites for which the time of a stage is told."""
    found = [this_site(rates), _node(rates, stage)]
    return [*found, *(with_gpus(rates, n) for n in GPUS)] if stage == "predict" else found


def this_site(rates: Rates) -> Site:
    """This machine."""
    here, measured = this_machine(), rates.machine
    same = (here.processor, here.cores) == (measured.processor, measured.cores)
    basis = "measured rates" if same else f"scaled from {n_cores(measured.cores)}"
    return Site(f"this machine, {n_cores(cores())}", basis, cores())


def _node(rates: Rates, stage: str) -> Site:
    basis = f"scaled from {n_cores(rates.machine.cores)}"
    if stage == "train":
        basis = f"assumed: no quicker than on {n_cores(rates.machine.cores)}"
    return Site(f"a node of {NODE_CORES} such cores", basis, NODE_CORES)


def with_gpus(rates: Rates, n_gpus: int) -> Site:
    """Nodes of NODE_CORES cores with a GPU each."""
    name, basis = "GPU", f"assumed: {OPERATIONS / 1e6:g} MFLOP a cell-day at "
    if "engine" in rates.gpu:
        name, basis = rates.machine.gpu or name, "engine measured"
        engine = rates.gpu["engine"]
    else:
        basis += f"{ASSUMED_GPU / 1e12:g} TFLOP/s in float32, 40 % of an A100's peak"
        engine = OPERATIONS / ASSUMED_GPU
    store = min(n_gpus * NETWORK, STORE)
    total = n_gpus * NODE_CORES
    return Site(
        f"{n_gpus} {name}{'s' if n_gpus > 1 else ''} fed by {total:,} such cores",
        f"{basis}; the cores' work scaled; store {store / 1e9:g} GB/s",
        total,
        engine / n_gpus,
        store,
        SCHEDULER,
    )


def n_cores(n: int) -> str:
    """A number of cores in words."""
    return f"{n} core{'s' if n > 1 else ''}"
