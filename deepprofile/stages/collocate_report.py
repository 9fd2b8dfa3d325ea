"""What a run of collocate says: products that are absent, stored statistics that were of use."""

from collections.abc import Sequence

import numpy as np

from deepprofile.stages.collocate_job import TileReport
from deepprofile.stages.context import Context
from deepprofile.stages.ingest_changes import spans
from deepprofile.store.layout import day_at


def absent(
    products: Sequence[str], reports: Sequence[TileReport], days: tuple[int, int]
) -> dict[str, dict[str, int | str]]:
    """Where the products have no value, for those with such days or cells.

    Args:
        products: names of the products.
        reports: those of the tiles.
        days: first day index and the one after the last.

    Returns:
        For each such product ``days`` without a value in any of the tiles and their ``dates``,
        ``cells`` of land without a value on any day.
    """
    present = np.bitwise_or.reduce([report.present for report in reports])
    there = np.unpackbits(present, axis=1, count=days[1] - days[0]).astype(bool)
    cells = np.sum([report.cells_without for report in reports], axis=0)
    found: dict[str, dict[str, int | str]] = {}
    for product, on_day, without in zip(products, there, cells.tolist(), strict=True):
        missing = [day_at(days[0] + int(i)) for i in np.flatnonzero(~on_day)]
        if missing or without:
            found[product] = {"days": len(missing), "dates": spans(missing), "cells": without}
    return found


def say(context: Context, reports: Sequence[TileReport], days: tuple[int, int]) -> None:
    """Print which products are absent where, and how much was read."""
    if not reports:
        return
    total, n_days = sum(report.cells for report in reports), days[1] - days[0]
    lines = [report.problem for report in reports if report.problem]
    for product, gaps in absent(context.recipe.collocation.products, reports, days).items():
        if gaps["days"]:
            lines.append(
                f"{product} has no value on {gaps['days']} of {n_days} days: {gaps['dates']}"
            )
        if gaps["cells"]:
            lines.append(
                f"{product} has no value on any day in {gaps['cells']} of {total} land cells "
                f"({100 * int(gaps['cells']) / total:.1f} %)"
            )
    for line in lines:
        context.console.print(f"  [yellow]{line}[/yellow]", highlight=False)
    read, kept = (sum(getattr(report, name) for report in reports) for name in ("read", "kept"))
    context.console.print(
        f"  {read} blocks of tiles read, statistics of {kept} taken as stored", highlight=False
    )
