"""What is in a model's folder, for people: shape, variables with their limits, provenance."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepprofile.model.configuration import ModelError
from deepprofile.model.io import load_model, read_description
from deepprofile.model.network import DeepProfile

LISTED = ("versions", "data", "metrics", "cell_days")
"""Mappings of the metadata that are shown as lists of their own."""
LONG = ("recipe", "training", "cells_without_samples")
"""Metadata that are shown after the rest, or counted."""


def render_model(url: str) -> RenderableType:
    """A model for a terminal (``rich.print``).

    Raises:
        FileNotFoundError: if a file of the model is absent.
        ModelError: if the model is damaged or not of this format.
    """
    try:
        description, model = read_description(url), load_model(url)
    except ValueError as error:
        raise ModelError(str(error)) from error
    head = Table.grid(padding=(0, 2))
    for name, text in _head(url, description, model):
        head.add_row(Text(name, style="bold"), Text(text))
    metadata = description["metadata"]
    parts = [_mapping(name, metadata[name]) for name in LISTED if metadata.get(name)]
    recipe = metadata.get("recipe")
    settings = recipe if isinstance(recipe, Mapping) else {"training": metadata.get("training")}
    return Group(head, _inputs(model), *parts, _mapping("recipe", settings))


def _head(url: str, description: dict[str, Any], model: DeepProfile) -> Iterator[tuple[str, str]]:
    config, metadata = model.config, description["metadata"]
    yield "model", f"{description['fingerprint']} in {url}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield (
        "network",
        f"{parameters:,} parameters; window {config.window} days, {config.n_coefficients} "
        f"coefficients, kernel {config.kernel_size}, filters {config.filters}",
    )
    layers = ", ".join(layer.name for layer in config.layers) or "unknown"
    yield "layers", layers
    for name, value in {**description["written_by"], **metadata}.items():
        if name not in (*LISTED, *LONG):
            yield name.replace("_", " "), _text(value)
    without = metadata.get("cells_without_samples")
    if without:
        yield "cells without samples", str(len(without))


def _inputs(model: DeepProfile) -> Table:
    """Variables and features with units and limits."""
    table = Table("input", "units", box=None, header_style="bold")
    for name in ("minimum", "maximum"):
        table.add_column(name, justify="right")
    config = model.config
    for names, units, n, part in (
        (config.variables, config.variable_units, config.n_variables, "series"),
        (config.features, config.feature_units, config.n_auxiliary, "auxiliary"),
    ):
        low, high = (getattr(model, f"{part}_{end}").tolist() for end in ("minimum", "maximum"))
        for i in range(n):
            table.add_row(
                names[i] if names else f"{part} {i}",
                units[i] if units else "unknown",
                f"{low[i]:.6g}",
                f"{high[i]:.6g}",
            )
    return table


def _mapping(title: str, values: Mapping[str, Any]) -> Table:
    """A mapping and those in it, a line for each value."""
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(title.replace("_", " "), style="bold"), Text())
    for name, value in _flat(values):
        table.add_row(Text(f"  {name}"), Text(_text(value)))
    return table


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
