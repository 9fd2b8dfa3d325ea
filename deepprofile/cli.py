"""The command line: run a recipe, plan it, look into a store."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from distributed import Client
from rich.console import Console

from deepprofile import stages
from deepprofile.cluster import LOCAL, ClusterError, connect
from deepprofile.recipe import RecipeError, load_recipe
from deepprofile.stages.context import StageError
from deepprofile.store import CubeError, JobError, describe, render

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Root-zone soil moisture profiles for every land cell and day.",
)
EXPECTED = (RecipeError, ClusterError, StageError, CubeError, JobError, FileNotFoundError)
"""Errors that tell the user what to do; anything else is a fault and shows where it rose."""
FILE_WIDTH = 140
"""Columns of a table where the output is no terminal."""
RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as pipelines/demo.yaml.")]


@app.command()
def run(
    recipe: RecipePath,
    stage: Annotated[
        list[str] | None,
        typer.Option(help=f"Run only this stage; may be repeated. One of {stages.names()}."),
    ] = None,
    cluster: Annotated[
        str, typer.Option(help="A file of cluster/, a scheduler's address, or 'local'.")
    ] = LOCAL,
) -> None:
    """Run a recipe, or single stages of it; what is done already is not done again."""
    console = _console()
    document = load_recipe(recipe)
    chosen = stages.select(document, stage)
    with connect(cluster) as client:
        console.print(f"[bold]{document.name}[/bold] in {document.root}", highlight=False)
        console.print(f"Dask: {_workers(client)}", highlight=False)
        stages.run(chosen, stages.Context(document, client, console))


def _console() -> Console:
    """The terminal as it is; elsewhere lines wide enough for tables, and none of them broken."""
    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH, soft_wrap=True)


def _workers(client: Client) -> str:
    threads = client.nthreads()
    return f"{len(threads)} workers, {sum(threads.values())} threads"


@app.command()
def plan(recipe: RecipePath) -> None:
    """Print jobs, bytes and memory of every stage without touching data."""
    _console().print(stages.plan_table(load_recipe(recipe)))


@app.command()
def inspect(
    url: Annotated[str, typer.Argument(help="A cube: a local path or a URL such as s3://…")],
) -> None:
    """Show what is in a cube: extent, sizes, holes, failures, history."""
    _console().print(render(describe(url)))


def main() -> None:
    """Entry point: known errors become one clear message and exit code 2."""
    try:
        app()
    except EXPECTED as error:
        Console(stderr=True).print(
            f"[bold red]error:[/bold red] {error}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
