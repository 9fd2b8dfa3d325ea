"""Ground truth of a recipe's station archives, read once and kept as a Zarr store."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from deepprofile import places
from deepprofile.evaluation.ground_truth import ground_truth, not_grouped
from deepprofile.evaluation.reference import cell_table
from deepprofile.evaluation.stations import merge_records, read_archive
from deepprofile.products.files import tags_text
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context
from deepprofile.stages.publication import fingerprint_of
from deepprofile.stages.remote import Report, run_on_worker
from deepprofile.store.layout import day_at

STATION_COLUMNS = ["row", "column", "cell_class", "network"]
FORM = "2: with networks"
"""What the ground truth holds; where another one lies, the archives are read anew."""


def prepare_ground_truth(context: Context) -> pd.DataFrame:
    """Read the station archives, where this is not done for this recipe.

    Returns:
        One line a station cell: row, column, cell_class, network. Empty without stations.
    """
    recipe, url = context.recipe, context.paths.ground_truth
    if recipe.stations is None:
        return pd.DataFrame({name: [] for name in STATION_COLUMNS}).astype(
            {"row": int, "column": int}
        )
    tags = [tags_text(archive) for archive in recipe.stations.urls]
    digest = fingerprint_of([FORM, recipe.digest("stations", "ground_truth", "period"), *tags])
    if _digest(url) != digest:
        rejected = run_on_worker(context, "reading station archives", _read, recipe, url, digest)
        for item in rejected[:10]:
            context.console.print(
                f"  [yellow]set aside[/yellow] {item['path']}: {item['reason']}", highlight=False
            )
        if len(rejected) > 10:
            context.console.print(f"  … and {len(rejected) - 10} more; all are in the report")
    return cell_table(open_ground_truth(url))[STATION_COLUMNS]


def open_ground_truth(url: str) -> xr.Dataset:
    """The ground truth, see `deepprofile.evaluation.ground_truth`; read where it is indexed."""
    dataset: xr.Dataset = xr.open_zarr(
        places.zarr_store(url), chunks=None, consolidated=False, zarr_format=3
    )
    texts = {
        name: (coordinate.dims, np.array(coordinate.values.tolist(), dtype=str))
        for name, coordinate in dataset.coords.items()
        if coordinate.dtype.kind in "OT"
    }
    return dataset.assign_coords(texts)


def ground_truth_attributes(url: str) -> dict[str, Any]:
    """Attributes of the ground truth; empty where there is none."""
    if not places.exists(f"{url}/zarr.json"):
        return {}
    return dict(zarr.open_group(places.zarr_store(url), mode="r", zarr_format=3).attrs)


def _digest(url: str) -> str:
    return str(ground_truth_attributes(url).get("inputs", ""))


def _read(report: Report, recipe: Recipe, url: str, digest: str) -> list[dict[str, str]]:
    urls = recipe.stations.urls if recipe.stations else []
    archives = []
    for i, archive in enumerate(urls):
        report(i / len(urls), archive.rsplit("/", 1)[-1])
        archives.append(
            read_archive(
                archive,
                flags=recipe.ground_truth.good_flags,
                start=day_at(recipe.period.days.start),
                stop=day_at(recipe.period.days.stop),
            )
        )
    records = merge_records(archives)
    truth = ground_truth(records, min_days=recipe.ground_truth.min_days)
    rejected = [{"path": item.path, "reason": item.reason} for item in records.rejected]
    outside = [
        {"path": str(path), "reason": "its depth belongs to no depth group"}
        for path in not_grouped(records)["path"]
    ]
    noted = json.dumps(rejected + outside)
    texts = {name: c.astype(object) for name, c in truth.coords.items() if c.dtype.kind == "U"}
    truth = truth.assign_coords(texts)
    _write(truth.assign_attrs(rejected=noted), url, digest)
    return rejected


def _write(truth: xr.Dataset, url: str, digest: str) -> None:
    """Write the ground truth; the digest comes last, since it vouches for the values."""
    with places.written_folder(url, anew=True) as folder:
        truth.to_zarr(folder, mode="w", consolidated=False, zarr_format=3)
    group = zarr.open_group(places.zarr_store(url), mode="r+", zarr_format=3)
    group.attrs["inputs"] = digest
