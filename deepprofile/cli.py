"""The command line: run a recipe, plan it, look into a store.

What needs torch is imported by the commands that use it: it takes seconds.
"""

import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from deepprofile import events
from deepprofile.cluster import LOCAL
from deepprofile.cluster.connecting import spec_of
from deepprofile.cube_commands import ClusterOption, commands, details, terminal
from deepprofile.exit_codes import (
    COMMAND_CODES,
    EXIT_CODES,
    EXPECTED,
    RUN_CODES,
    TERMINATED,
    Code,
    code_of,
)
from deepprofile.export import Form, Request, export_layers, layer_of
from deepprofile.operators.logs import OPTION, VARIABLE, LogFormat, format_asked, json_lines
from deepprofile.operators.operation import described, operation
from deepprofile.operators.signals import orderly
from deepprofile.places_root import writable
from deepprofile.progress import meter
from deepprofile.rates import load_rates, rates_path, save_rates
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, chain
from deepprofile.stages.planning import render_plans, render_rates

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Root-zone soil moisture profiles for every land cell and day.",
)
app.add_typer(commands)
DAY = "%Y-%m-%d"
RatesOption = Annotated[
    Path | None,
    typer.Option(help="File of rates; by default $DEEPPROFILE_RATES or the user's settings."),
]
RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as pipelines/demo.yaml.")]
RootOption = Annotated[
    str | None,
    typer.Option(help="Where all results lie, instead of the file's own root: path or s3://…"),
]
LogOption = Annotated[
    LogFormat,
    typer.Option(
        OPTION,
        envvar=VARIABLE,
        help="Lines for people, or one JSON object a line on standard error.",
    ),
]
MetricsOption = Annotated[
    Path | None,
    typer.Option(help="Write metrics to this file at the end, for Prometheus' node exporter."),
]


@app.command(epilog=RUN_CODES)
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
    root: RootOption = None,
    log_format: LogOption = LogFormat.TEXT,
    metrics_file: MetricsOption = None,
) -> None:
    """Run a recipe, or single stages of it; what is done is not done again, except evaluate."""
    with operation("run", recipe, terminal(log_format), metrics_file) as here:
        document = load_recipe(recipe, root)
        here.about(document.name, document.root)
        chosen = chain.select(document, stage)
        if not retry_failed:  # which stages are to be run again is known later
            chain.check_cluster(document, chosen, cluster)
            chain.check_inputs(document, chosen)
        with writable(document.root), here.connected(cluster) as client:
            chain.run(chosen, Context(document, client, here.console, retry_failed))


@app.command(epilog=COMMAND_CODES)
def plan(
    recipe: RecipePath,
    rates: RatesOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="A file of cluster/: do its workers have the memory? None is started."),
    ] = None,
) -> None:
    """Print jobs, bytes, memory and time of every stage without touching data."""
    document = load_recipe(recipe)
    spec = None if cluster is None else spec_of(cluster)
    source = rates or rates_path()
    known = load_rates(source) if rates or source.exists() else None
    there = None if spec is None else (str(cluster), spec)
    terminal().print(render_plans(document, chain.plans(document, spec), known, source, there))


@app.command(epilog=COMMAND_CODES)
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


@app.command(epilog=COMMAND_CODES)
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


@app.command(epilog=RUN_CODES)
def experiment(
    file: Annotated[
        Path, typer.Argument(help="An experiment, such as those of pipelines/experiments.")
    ],
    cluster: ClusterOption = LOCAL,
    root: Annotated[
        str | None, typer.Option(help="Instead of the root of the experiment's recipe.")
    ] = None,
    log_format: LogOption = LogFormat.TEXT,
    metrics_file: MetricsOption = None,
) -> None:
    """Train a recipe's network with many settings side by side, and compare what comes out."""
    from deepprofile.experiments.definition import load_experiment
    from deepprofile.experiments.run import check_cluster, run_experiment

    with operation("experiment", file, terminal(log_format), metrics_file) as here:
        chosen = load_experiment(file, root)
        here.about(chosen.recipe.name, chosen.recipe.root, title=False)
        check_cluster(chosen, cluster)
        with writable(chosen.recipe.root), here.connected(cluster) as client:
            figure = run_experiment(chosen, client, here.console)
        here.result("figure", figure)


@app.command(epilog=RUN_CODES)
def assess(
    file: Annotated[
        Path, typer.Argument(help="An assessment, such as those of pipelines/assessments.")
    ],
    cluster: ClusterOption = LOCAL,
    root: RootOption = None,
    log_format: LogOption = LogFormat.TEXT,
    metrics_file: MetricsOption = None,
) -> None:
    """Judge estimates of any origin against stations: tables and one report."""
    from deepprofile.assessments import load_definition, run_assessment

    with operation("assess", file, terminal(log_format), metrics_file) as here:
        definition = load_definition(file, root)
        here.about(definition.name, definition.root)
        with writable(definition.root), here.connected(cluster) as client:
            result = run_assessment(definition, client, here.console)
        here.result("report", str(result.report))


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
    root: RootOption = None,
    verbose: Annotated[
        bool, typer.Option(help="Say on standard error what the stages do and set aside.")
    ] = False,
    log_format: LogOption = LogFormat.TEXT,
    metrics_file: MetricsOption = None,
) -> None:
    """Take in the granules that have arrived, predict what they touch, print one line."""
    from deepprofile.stages.daily import run_daily

    with operation("daily", recipe, details(log_format, verbose), metrics_file) as here:
        document = load_recipe(recipe, root)
        here.about(document.name, document.root, title=False)
        wanted = date.date() if date else None
        chain.check_cluster(document, chain.GROWING, cluster)
        report = run_daily(document, wanted, lambda: here.connected(cluster), here.console)
        typer.echo(report.line)
        name = Code(report.code).name.lower()
        level = logging.ERROR if report.code == Code.FAILED else logging.WARNING
        if report.problem:
            events.notice("problem", f"{name}: {report.problem}", level, status=name)
        events.conclude(exit_code=int(report.code), status=name)
    raise typer.Exit(report.code)


def main() -> None:
    """Entry point: known errors become one clear message, signals an end in order.

    Every way to end has an exit code, see `deepprofile.exit_codes`.
    """
    with orderly() as signals:
        if format_asked(sys.argv[1:], os.environ) == LogFormat.JSON:
            with json_lines():
                code = _code_with_records()
        else:
            code = _code_with_text()
        sys.exit(TERMINATED if signals.terminated else code)


def _code_with_text() -> int:
    try:
        app()
    except EXPECTED as error:
        Console(stderr=True).print(
            Text.assemble(("error:", "bold red"), f" {error}"), highlight=False, soft_wrap=True
        )
        return code_of(error)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        return code_of(end)
    return Code.DONE


def _code_with_records() -> int:
    try:
        return int(app(standalone_mode=False) or Code.DONE)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            events.emit("error", str(end.code), logging.ERROR, **described(end, code_of(end)))
        return code_of(end)
    except Exception as error:
        # An error of the command line has a text and an exit code of its own.
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        code = int(getattr(error, "exit_code", code_of(error)))
        events.emit("error", text, logging.ERROR, **described(error, code))
        return code
