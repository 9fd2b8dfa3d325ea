"""The whole chain with its root in an object store: the same results, and no secret anywhere."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest
import xarray as xr
import yaml
from distributed import Client
from fault_support import NO_DASHBOARD
from rich.console import Console
from test_stages import RECIPE

import deepprofile as dp
from deepprofile import places
from deepprofile.evaluation.report import page as report
from deepprofile.evaluation.report import sections
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, chain, evaluate, synthesize
from deepprofile.stages.cell_table import read_cell_table
from deepprofile.store import describe, history
from deepprofile.testing.object_store import SECRET_KEY

SMALL = {
    **RECIPE,
    "synthetic": {"seed": 3, "size": 8},
    "period": {"start": "2015-03-31", "end": "2015-05-13"},
    "training": {
        "window": 40,
        "epochs": 1,
        "average_last": 1,
        "samples_per_epoch": 64,
        "batch_size": 32,
    },
    "ingest": {"blocks_per_commit": 1, "min_fraction": 0.125},
    "collocation": {"min_samples": 20, "bootstrap": 5, "block_days": 10},
    "ground_truth": {"min_days": 15},
    "evaluate": {"min_days": 3, "min_cells": 8, "replicates": 20},
}


KEPT = ("T0130", ".0300.")
"""In the names of the SMAP L4 and GLDAS granules that are read: one a day."""


def _context(folder: Path, client, root: str, **changes) -> Context:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "root": root, **changes}))
    return Context(load_recipe(path), client, Console(record=True, width=200))


@pytest.fixture(scope="module")
def thread() -> Iterator[Client]:
    """A worker in this process, which has its modules and compiled functions already."""
    with Client(n_workers=1, threads_per_worker=1, processes=False, **NO_DASHBOARD) as client:
        yield client


@pytest.fixture(scope="module")
def local(tmp_path_factory, thread) -> Context:
    """The chain in a folder, without the page of figures, which nothing is compared with."""
    folder = tmp_path_factory.mktemp("local")
    context = _context(folder, thread, str(folder / "work"))
    chain.run(["synthesize"], context)
    for name in ("smap_l4", "gldas"):
        for path in Path(context.recipe.products[name].url).rglob("*"):
            if path.is_file() and not any(part in path.name for part in KEPT):
                path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "write_report", lambda url, inputs: url)
        chain.run(chain.select(context.recipe, None), context)
    return context


@pytest.fixture(scope="module")
def remote(tmp_path_factory, thread, object_store, local) -> Context:
    """The chain in an object store, from the same product files; the page has no figures."""
    context = _context(tmp_path_factory.mktemp("remote"), thread, "s3://tests/chain")
    with places.written_folder(context.paths.earth) as folder:
        copytree(local.paths.earth, folder, dirs_exist_ok=True)
    parts = sections.brief, sections.provenance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "all_sections", lambda inputs: [part(inputs) for part in parts])
        chain.run(chain.select(context.recipe, None), context)
    return context


def test_a_worker_process_makes_product_files_in_an_object_store(tmp_path, client, s3_url):
    small = {"synthetic": {"seed": 3, "size": 8}, "collocation": {"min_samples": 3}}
    small["period"] = {"start": "2015-04-01", "end": "2015-04-03"}
    here, there = (_context(tmp_path, client, url, **small) for url in (str(tmp_path), s3_url))
    for context in (here, there):
        synthesize.run(context)
    sizes, expected = (
        {
            name.removeprefix(context.paths.earth): info["size"]
            for name, info in places.find(context.paths.earth).items()
        }
        for context in (there, here)
    )
    assert sizes == expected
    assert len(sizes) > 3 * (8 + 8)
    assert "already" in synthesize.run(there)


def _cubes(context: Context) -> dict[str, str]:
    paths = context.paths
    others = ("static", "collocation", "samples", "coefficients")
    products = {name: paths.product(name) for name in SMALL["products"]}
    return products | {name: getattr(paths, name) for name in others}


def test_cubes_model_and_metrics_are_the_same_bit_for_bit(local, remote):
    here = _cubes(local)
    for name, url in _cubes(remote).items():
        one, other = (dp.open_cube(u, chunks=None).load() for u in (url, here[name]))
        xr.testing.assert_equal(one, other)
        assert all(one[v].dtype == other[v].dtype for v in one.variables)
    assert dp.open_cube(remote.paths.coefficients)["flag"].isin([0, 1]).any().compute()
    pd.testing.assert_frame_equal(*(read_cell_table(c.paths.cells) for c in (remote, local)))
    for name in ("model/model.safetensors", "report/metrics.csv"):
        assert (
            places.read_bytes(f"{remote.recipe.root}/{name}")
            == (Path(local.recipe.root) / name).read_bytes()
        )


def test_a_run_that_finds_its_work_done_writes_nothing(remote):
    root = remote.recipe.root
    before = {name: info["ETag"] for name, info in places.find(root).items()}
    chain.run(["synthesize", "ingest", "collocate", "sample", "train", "predict"], remote)
    assert {name: info["ETag"] for name, info in places.find(root).items()} == before


def test_the_secret_is_in_nothing_that_was_written_or_said(remote):
    for url in _cubes(remote).values():
        cube = dp.open_cube(url, chunks=None)
        attributes = [cube.attrs, *(cube[name].attrs for name in cube.variables)]
        assert SECRET_KEY not in f"{attributes} {describe(url)} {history(url)}"
    files = places.find(remote.recipe.root)
    assert f"{remote.recipe.root}/report/report.html" in files
    products = f"{remote.recipe.root}/earth/"
    written = [name for name in files if not name.startswith(products)]
    assert len(written) > 50
    assert not [name for name in written if SECRET_KEY.encode() in places.read_bytes(name)]
    assert SECRET_KEY not in remote.console.export_text(clear=False)
