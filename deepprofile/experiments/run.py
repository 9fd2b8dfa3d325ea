"""Run an experiment: its trainings side by side on the cluster, then tables, figure, findings."""

from collections import Counter
from urllib.parse import urlsplit

import pandas as pd
from distributed import Client
from rich.console import Console
from rich.table import Table

from deepprofile import places
from deepprofile.evaluation.figures.style import image
from deepprofile.experiments.definition import Experiment
from deepprofile.experiments.figures import FIGURES
from deepprofile.experiments.results import Results, findings, gather
from deepprofile.experiments.work import RunJob, is_done, train_and_measure
from deepprofile.progress import meter
from deepprofile.stages import chain
from deepprofile.stages.context import Context, FailedJobsError
from deepprofile.stages.devices import able_workers, unless_all, workers_apart
from deepprofile.stages.publication import fingerprint_of, inputs_of
from deepprofile.stages.stations import ground_truth_attributes
from deepprofile.stages.train import plan, settings_of
from deepprofile.store import JobFailure, Need, check_memory, run_jobs

BEFORE = ("synthesize", "ingest", "collocate", "sample")
"""Stages whose results an experiment needs."""
MAX_SHOWN = 40
"""Runs that the terminal shows; all are in the table of the runs."""


def run_experiment(experiment: Experiment, client: Client, console: Console) -> str:
    """Make the samples where they are not there, then `compare_runs`; the URL of the figure.

    Raises:
        StageError: if a stage before can't go on; else as `compare_runs`.
    """
    context = Context(experiment.recipe, client, console)
    chain.run(_stages_before(experiment), context)
    console.print(f"[bold]{experiment.definition.name}[/bold]")
    return compare_runs(experiment, context)


def check_cluster(experiment: Experiment, cluster: str) -> None:
    """Stop before a cluster is started whose file gives workers too little memory.

    Raises:
        ClusterError, JobError: see `chain.check_cluster`.
    """
    chain.check_cluster(experiment.recipe, _stages_before(experiment), cluster, [_need(experiment)])


def _stages_before(experiment: Experiment) -> list[str]:
    return [name for name in BEFORE if experiment.recipe.synthetic or name != "synthesize"]


def compare_runs(experiment: Experiment, context: Context) -> str:
    """Train what is not trained yet, and compare all runs; the URL of the figure.

    Runs that are done are not done again; a run that was stopped goes on from its last
    checkpoint; one that fails stops no other.

    Raises:
        StageError: if no worker has the device that is asked for.
        JobError: if a training does not fit into the smallest worker.
        FailedJobsError: if runs failed; figure and tables show the others.
    """
    console = context.console
    failed = _train(experiment, context)
    for failure in failed:
        console.print(f"  [red]failed[/red] {failure.job.key}: {failure.error}", highlight=False)
    names = {failure.job.key for failure in failed}
    done = [run for run in experiment.runs if run.name not in names]
    if not done:
        raise FailedJobsError(f"all {len(failed)} runs failed, so there is nothing to compare.")
    figure = _show(experiment, gather(done), console)
    if failed:
        raise FailedJobsError(
            f"{len(failed)} of {len(experiment.runs)} runs failed ({', '.join(sorted(names))}); "
            f"{figure} shows the others. Run the experiment again to repeat them."
        )
    return figure


def _need(experiment: Experiment) -> Need:
    """Memory that a worker needs for the largest training, of which it has one at a time."""
    needed = max((plan(run.recipe) for run in experiment.runs), key=lambda made: made.job_memory)
    return needed.need("training")


def _train(experiment: Experiment, context: Context) -> list[JobFailure]:
    """Run what is outstanding, one training at a time in each worker process."""
    device, able = able_workers(context)
    workers = workers_apart(able)
    jobs = [job for job in _jobs(experiment, context, device, workers) if not is_done(job)]
    there = len(experiment.runs) - len(jobs)
    context.console.print(f"  {len(jobs)} of {len(experiment.runs)} runs to do, {there} done")
    if not jobs:
        return []
    check_memory(context.client, [_need(experiment)])
    shares: dict[str, float] = {}
    with meter(context.console, "runs", len(jobs)) as progress:

        def tell(event: tuple[float, tuple[str, float, str]]) -> None:
            name, share, note = event[1]
            shares[name] = share
            progress.update(round(sum(shares.values()), 2), f"{name}: {note}")

        context.client.subscribe_topic(jobs[0].topic, tell)
        try:
            _, failed = run_jobs(
                context.client,
                train_and_measure,
                jobs,
                window=len(workers),
                retries=0,
                workers=unless_all(context, workers),
            )
        finally:
            context.client.unsubscribe_topic(jobs[0].topic)
    return failed


def _jobs(
    experiment: Experiment, context: Context, device: str, workers: list[str]
) -> list[RunJob]:
    recipe, paths = context.recipe, context.paths
    ground_truth = paths.ground_truth if recipe.stations else ""
    truth = paths.truth if recipe.synthetic else ""
    known = ground_truth_attributes(ground_truth) if ground_truth else {}
    references = fingerprint_of(
        [str(known.get("inputs", "")), recipe.digest("synthetic", "evaluate")]
    )
    crowd = max(Counter(urlsplit(address).hostname for address in workers).values())
    return [
        RunJob(
            run,
            paths.samples,
            ground_truth,
            truth,
            inputs_of([paths.samples], settings_of(run.recipe)),
            references,
            device,
            1 / crowd,
            f"deepprofile experiment {experiment.definition.name}",
        )
        for run in experiment.runs
    ]


def _show(experiment: Experiment, results: Results, console: Console) -> str:
    """Write the tables and the figure, print what they say; the figure's URL."""
    folder = experiment.folder
    tables = {
        "runs": results.runs,
        "coefficients": results.coefficients,
        "skill": results.skill,
        "losses": results.losses,
    }
    for name, table in tables.items():
        places.write_csv(f"{folder}/{name}.csv", table)
    drawn = FIGURES[experiment.definition.figure](results)
    places.write_bytes(f"{folder}/figure.svg", image(drawn, "svg"))
    places.write_bytes(f"{folder}/figure.png", image(drawn, "png"))
    lines = findings(experiment.definition.figure, results)
    places.write_bytes(f"{folder}/findings.txt", "".join(f"{x}\n" for x in lines).encode())
    console.print(_table(results.runs))
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    return f"{folder}/figure.png"


def _table(runs: pd.DataFrame) -> Table:
    """Losses of the runs at the end, for the terminal."""
    table = Table(title="Validation loss of the averaged parameters")
    columns = ["run", "training_cells", "total", "surface", "root", "negative", "smoothness"]
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "run" else "right")
    for line in runs[columns].head(MAX_SHOWN).itertuples(index=False):
        table.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in line))
    return table
