"""The report: one self-contained HTML file with figures and tables, and images beside it.

The report takes plain tables and arrays and knows neither the model nor the store. Every part is
optional; a missing one is named in the report with the reason.
"""

from collections.abc import Sequence
from importlib.resources import files
from posixpath import dirname

import jinja2
import pandas as pd
import rich.table
from markupsafe import Markup

from deepprofile import places
from deepprofile.evaluation.figures.style import label
from deepprofile.evaluation.figures.violins import depth_groups
from deepprofile.evaluation.report.blocks import Section
from deepprofile.evaluation.report.findings import columns_of, group_lines
from deepprofile.evaluation.report.inputs import ReportInputs
from deepprofile.evaluation.report.sections import all_sections

__all__ = ["ReportInputs", "console_table", "write_report"]


def write_report(url: str, inputs: ReportInputs) -> str:
    """Write the report as one HTML file, and its figures as images into ``figures/`` beside it.

    Args:
        url: path or fsspec URL of the HTML file; folders are made as needed.
        inputs: what to show.

    Returns:
        ``url``.
    """
    sections = all_sections(inputs)
    folder = f"{dirname(url)}/figures" if dirname(url) else "figures"
    for picture in (picture for section in sections for picture in section.pictures):
        for name, data in picture.files.items():
            places.write_bytes(places.inside(folder, name), data)
    places.write_bytes(url, _render(inputs, sections).encode())
    return url


def _render(inputs: ReportInputs, sections: list[Section]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_source)
    )
    return environment.get_template("report.html").render(
        title=inputs.title,
        subtitle=inputs.subtitle,
        sections=sections,
        footer=_FOOTER,
        styles=_joined(_STYLES),
        scripts=_joined(_SCRIPTS),
    )


def _source(name: str) -> str:
    """Text of a file beside this module."""
    return files("deepprofile.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _joined(names: Sequence[str]) -> Markup:
    return Markup("\n".join(_source(name) for name in names))


_STYLES = ("report.css", "station_map.css")
_SCRIPTS = ("tables.js", "codec.js", "map.js", "chart.js", "station_map.js")
_FOOTER = (
    "The figures lie beside this file in the folder figures, as PNG, SVG and PDF. Tables can be "
    "sorted by a click on a heading."
)


def console_table(summary: pd.DataFrame, title: str = "") -> rich.table.Table:
    """The table of results for a terminal: the best value of each group and column in bold.

    Args:
        summary: one row for each depth group and estimate of one reference, with the medians.
        title: heading of the table.
    """
    columns = columns_of(summary)
    table = rich.table.Table(title=title or None, title_justify="left")
    table.add_column("Depth", no_wrap=True)
    table.add_column("Estimate", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right")
    for group in depth_groups(summary):
        for position, (estimate, values) in enumerate(group_lines(summary, group, columns)):
            texts = [f"[bold green]{v.text}[/]" if v.best else v.text for v in values]
            table.add_row("" if position else group, label(estimate), *texts)
        table.add_section()
    return table
