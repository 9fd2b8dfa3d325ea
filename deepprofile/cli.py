"""The command line: run a recipe, plan it, look into a store.

What needs torch is imported by the commands that use it: it takes seconds.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from distributed import Client
from rich.console import Console
from rich.text import Text

from deepprofile.cluster import LOCAL, ClusterError, connected
from deepprofile.cube_commands import ClusterOption, commands, terminal
from deepprofile.exit_codes import EXIT_CODES, Code
from deepprofile.export import ExportError, Form, Request, export_layers, layer_of
from deepprofile.model.configuration import ModelError
from deepprofile.places import PlaceError
from deepprofile.progress import meter
from deepprofile.rates import RatesError, load_rates, rates_path, save_rates
from deepprofile.recipe import RecipeError, load_recipe
from deepprofile.stages import Context, StageError, chain
from deepprofile.stages.planning import render_plans, render_rates
from deepprofile.store import CubeError, JobError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Root-zone soil moisture profiles for every land cell and day.",
)
app.add_typer(commands)
EXPECTED = (
    RecipeError,
    ClusterError,
    StageError,
    CubeError,
    JobError,
    OSError,
    RatesError,
    ExportError,
    PlaceError,
    ModelError,
)
"""Errors that tell the user what to do; anything else is a fault and shows where it rose."""
DAY = "%Y-%m-%d"
RatesOption = Annotated[
    Path | None,
    typer.Option(help="File of rates; by default $DEEPPROFILE_RATES or the user's settings."),
]
RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as pipelines/demo.yaml.")]


@app.command()
def run(
    recipe: RecipePath,
    stage: Annotated[
        list[str] | None,
        typer.Option(help=f"Run only this stage; may be repeated. One of {chain.names()}."),
    ] = None,
    cluster: ClusterOption = LOCAL,
    retry_failed: Annotated[
        bool, typer.Option(help="Repeat the jobs that failed before, and run no others.")
    ] = False,
    root: Annotated[
        str | None,
        typer.Option(help="Where all results lie, instead of the recipe's root: path or s3://…"),
    ] = None,
) -> None:
    """Run a recipe, or single stages of it; what is done already is not done again."""
    console = terminal()
    document = load_recipe(recipe, root)
    chosen = chain.select(document, stage)
    with connected(cluster) as client:
        console.print(f"[bold]{document.name}[/bold] in {document.root}", highlight=False)
        console.print(f"Dask: {_workers(client)}", highlight=False)
        chain.run(chosen, Context(document, client, console, retry_failed))


def _workers(client: Client) -> str:
    threads = client.nthreads()
    return f"{len(threads)} workers, {sum(threads.values())} threads"


@app.command()
def plan(recipe: RecipePath, rates: RatesOption = None) -> None:
    """Print jobs, bytes, memory and time of every stage without touching data."""
    document = load_recipe(recipe)
    source = rates or rates_path()
    known = load_rates(source) if rates or source.exists() else None
    terminal().print(render_plans(document, chain.plans(document), known, source))


@app.command()
def benchmark(
    rates: RatesOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Where temporary cubes are written; by default the system's own place.",
        ),
    ] = None,
) -> None:
    """Measure how fast this machine works, in a minute or two, and keep it for `plan`."""
    from deepprofile.benchmark import N_STEPS, measure_rates

    console = terminal()
    path = rates or rates_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with meter(console, "measuring", N_STEPS) as progress:
        found = measure_rates(str(folder) if folder else None, progress.update)
    save_rates(found, path)
    console.print(render_rates(found))
    console.print(f"kept in {path}", highlight=False)


@app.command()
def export(
    url: Annotated[str, typer.Argument(help="A cube of coefficients: local path or s3://…")],
    date: Annotated[datetime, typer.Option(formats=[DAY], help="The UTC day, or the first one.")],
    layer: Annotated[
        list[str],
        typer.Option(help="A layer with its unit: 0-100cm or 0-1m; may be repeated."),
    ],
    form: Annotated[
        Form, typer.Option("--format", help="One netCDF file, or a folder of GeoTIFFs.")
    ],
    output: Annotated[str, typer.Option(help="The file (netcdf) or the folder (cog).")],
    to: Annotated[
        datetime | None, typer.Option(formats=[DAY], help="The last UTC day, included.")
    ] = None,
    bounds: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(help="A box of degrees: west south east north.", metavar="W S E N"),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Export layer means as CF netCDF or cloud-optimised GeoTIFF."""
    layers = tuple(layer_of(text) for text in layer)
    request = Request(url, layers, date.date(), (to or date).date(), bounds)
    console = terminal()
    written = export_layers(request, form, output, overwrite=overwrite, console=console)
    console.print(str(written), highlight=False, markup=False)


@app.command()
def experiment(
    file: Annotated[
        Path, typer.Argument(help="An experiment, such as those of pipelines/experiments.")
    ],
    cluster: ClusterOption = LOCAL,
    root: Annotated[
        str | None, typer.Option(help="Instead of the root of the experiment's recipe.")
    ] = None,
) -> None:
    """Train a recipe's network with many settings side by side, and compare what comes out."""
    from deepprofile.experiments.definition import load_experiment
    from deepprofile.experiments.run import run_experiment

    chosen = load_experiment(file, root)
    console = terminal()
    with connected(cluster) as client:
        console.print(f"Dask: {_workers(client)}", highlight=False)
        figure = run_experiment(chosen, client, console)
    console.print(f"figure: {figure}", highlight=False, markup=False)


@app.command()
def assess(
    file: Annotated[
        Path, typer.Argument(help="An assessment, such as those of pipelines/assessments.")
    ],
    cluster: ClusterOption = LOCAL,
    root: Annotated[
        str | None, typer.Option(help="Where all results lie, instead of the file's root.")
    ] = None,
) -> None:
    """Judge estimates of any origin against stations: tables and one report."""
    from deepprofile.assessments import load_definition, run_assessment

    definition = load_definition(file, root)
    console = terminal()
    with connected(cluster) as client:
        console.print(f"[bold]{definition.name}[/bold] in {definition.root}", highlight=False)
        console.print(f"Dask: {_workers(client)}", highlight=False)
        result = run_assessment(definition, client, console)
    console.print(f"report: {result.report}", highlight=False, markup=False)


@app.command(epilog=EXIT_CODES)
def daily(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as pipelines/daily.yaml.")],
    date: Annotated[
        datetime | None,
        typer.Option(
            formats=[DAY],
            help="A UTC day that is wanted; without it, whatever has arrived up to yesterday.",
        ),
    ] = None,
    cluster: ClusterOption = LOCAL,
    verbose: Annotated[
        bool, typer.Option(help="Say on standard error what the stages do and set aside.")
    ] = False,
) -> None:
    """Take in the granules that have arrived, predict what they touch, print one line."""
    from deepprofile.stages.daily import run_daily

    details = Console(stderr=True, soft_wrap=True, quiet=not (verbose or sys.stderr.isatty()))
    document = load_recipe(recipe)
    report = run_daily(document, date.date() if date else None, lambda: connected(cluster), details)
    typer.echo(report.line)
    if report.problem:
        typer.echo(f"{Code(report.code).name.lower()}: {report.problem}", err=True)
    raise typer.Exit(report.code)


def main() -> None:
    """Entry point: known errors become one clear message and exit code 2."""
    try:
        app()
    except EXPECTED as error:
        Console(stderr=True).print(
            Text.assemble(("error:", "bold red"), f" {error}"), highlight=False, soft_wrap=True
        )
        sys.exit(2)
