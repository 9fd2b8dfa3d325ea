"""Stages whose jobs fail, all or some of them, and plans that somebody else has overtaken."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from prediction_support import TILE, write_inputs
from rich.console import Console

from deepprofile import grid
from deepprofile.products import PRODUCTS
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, chain, collocate, ingest, predict, sample, static
from deepprofile.stages.context import FailedJobsError
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.store import (
    ConflictError,
    PublicationError,
    Region,
    Tile,
    describe,
    head,
    history,
    render,
    static_template,
)
from deepprofile.store.layout import BLOCK_DAYS
from deepprofile.store.ledger import FAILED_RUNS
from deepprofile.store.repository import MAIN, open_group, open_or_create, open_repository
from deepprofile.store.snapshots import publications
from deepprofile.store.template import extend

N_BLOCKS, WINDOW = 2, 40
N_DAYS = N_BLOCKS * BLOCK_DAYS
REGION = Region((TILE.row, TILE.row + 1), (TILE.column, TILE.column + 2))
PATCH = np.s_[8:12]  # rows and columns of the land in each tile
RUN = {"collocate": collocate, "sample": sample, "predict": predict}
PLANS = {"collocate": "to_retry", "sample": "outstanding", "predict": "make_jobs"}
"""What is called last before a stage publishes."""


def forcing(tile, block):
    values = np.zeros((BLOCK_DAYS, 39, 56, 64), np.float32)
    rng = np.random.default_rng([tile.column, block])
    values[:, :, PATCH, PATCH] = rng.random((BLOCK_DAYS, 39, 4, 4), np.float32)
    return values


def write_moisture(root, name, seed):
    """Soil moisture of a product; returns the files of its values, and of its second tile."""
    url = f"{root}/cubes/{name}"
    repository = open_or_create(url, product_template(PRODUCTS[name], REGION))
    files, coordinates = set(), set()
    for column in (0, 64):
        session = repository.writable_session(MAIN)
        group = open_group(session.store, url)
        extend(group, N_DAYS)
        files = set(Path(url, "chunks").glob("*"))
        coordinates = coordinates or files
        if name == "smap_l4":  # the same once more, so that its files are known
            group["forcing"][:, :, :, column : column + 64] = np.concatenate(
                [forcing(Tile(TILE.row, TILE.column + column // 64), i) for i in range(N_BLOCKS)]
            )
        array = group["soil_moisture"]
        values = np.full((*array.shape[:2], 56, 64), np.nan, np.float32)
        truth = np.random.default_rng(column).random((N_DAYS, 1, 4, 4), np.float32)
        noise = np.random.default_rng(seed).random((*array.shape[:2], 4, 4), np.float32)
        values[:, :, PATCH, PATCH] = 0.1 + 0.2 * truth + 0.1 * noise
        array[:, :, :, column : column + 64] = values
        session.commit("values", {"stage": "ingest", "done": {f"half {column}": "1"}})
    every = set(Path(url, "chunks").iterdir())
    return every - coordinates, every - files


def context_of(root, client, **changes):
    east, west = grid.longitudes()[[REGION.columns.stop - 2, REGION.columns.start + 1]]
    south, north = grid.latitudes()[[REGION.rows.stop - 2, REGION.rows.start + 1]]
    box = {"west": west, "south": south, "east": east, "north": north}
    document = {
        "name": "failures",
        "root": str(root),
        "period": {"start": "2015-03-31", "end": "2015-06-02"},
        "region": {side: float(value) for side, value in box.items()},
        "products": {name: {"url": str(root / "granules" / name)} for name in PRODUCTS},
        "terrain": {"urls": [str(root / "granules/dem.nc")]},
        "collocation": {"min_samples": 30},
        "training": {"window": WINDOW},
        "predict": {"device": "cpu"},
        **changes,
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    recipe = load_recipe(path)
    assert (recipe.tiles, recipe.period.days.stop) == (REGION, N_DAYS)
    return Context(recipe, client, Console(record=True, width=200))


@pytest.fixture(scope="module")
def world(driver_client, tmp_path_factory):
    """Cubes of the products, a model, weights; and by product the files of the second tile, and of
    both.
    """
    root = tmp_path_factory.mktemp("failures") / "root"
    land = np.zeros(REGION.shape, bool)
    land[PATCH, PATCH] = land[PATCH, 64:][:, PATCH] = True
    write_inputs(root, REGION, N_BLOCKS, forcing, land, WINDOW)
    files = [write_moisture(root, name, i) for i, name in enumerate(PRODUCTS)]
    every, second = (
        {
            name: {f.relative_to(root) for f in found}
            for name, found in zip(PRODUCTS, part, strict=True)
        }
        for part in zip(*files, strict=True)
    )
    collocate.run(context_of(root, driver_client))
    return root, second, every


@pytest.fixture
def root(world, tmp_path):
    """A copy of the world that a test may spoil."""
    return Path(shutil.copytree(world[0], tmp_path / "root"))


def cube_of(context, stage):
    paths = context.paths
    return {
        "collocate": paths.collocation,
        "sample": paths.samples,
        "predict": paths.coefficients,
    }[stage]


def hide(root, files):
    """Let files of the world be gone, and sums made from them; returns what brings them back."""
    shutil.rmtree(root / "collocation", ignore_errors=True)
    moved = [(root / file, root / f"hidden-{i}") for i, file in enumerate(sorted(files))]
    for there, away in moved:
        there.rename(away)
    return lambda: [away.rename(there) for there, away in moved]


def test_a_run_of_which_every_job_failed_is_known_and_repeated(driver_client, world, root):
    context = context_of(root, driver_client)
    url = context.paths.collocation
    shutil.rmtree(url)
    bring_back = hide(root, world[2]["gldas"])
    for _ in range(2):  # the second time the ledger has nothing to add
        with pytest.raises(PublicationError, match=r"(?s)all 2 jobs failed.*--retry-failed them"):
            collocate.run(context)
        found = describe(url)
        assert len(found.failures) == 2
        assert all("not found" in reason for reason in found.failures.values())
        assert publications(history(url)) == []
        assert [c.failed_run for c in history(url)] == [True, False]  # and the creation
    context.console.print(render(found))
    assert "Failed jobs: 2" in context.console.export_text(clear=False)
    bring_back()
    again = replace(context, retry_failed=True)
    chain.run(["collocate"], again)
    assert describe(url).failures == {}
    assert len(publications(history(url))) == 2  # estimates, weights of invalid cells
    chain.run(["collocate"], again)
    assert "no failed job to repeat" in again.console.export_text()


def test_a_failed_run_moves_nothing_that_others_rest_on(driver_client, world, root):
    usual = context_of(root, driver_client)
    collocate.run(usual)
    url = usual.paths.collocation
    before = head(url)
    context = context_of(root, driver_client, collocation={"min_samples": 31})
    bring_back = hide(root, world[2]["gldas"])
    with pytest.raises(PublicationError):
        collocate.run(context)
    assert head(url) == before
    assert FAILED_RUNS in open_repository(url).list_branches()
    bring_back()
    collocate.run(usual)  # with the setting of before: all is done
    assert head(url) == before


@pytest.mark.parametrize("stage", RUN)
def test_retrying_runs_the_jobs_that_failed_and_no_others(driver_client, world, root, stage):
    context = context_of(root, driver_client, collocation={"min_samples": 31})
    product = "smap_l4" if stage == "predict" else "gldas"
    bring_back = hide(root, world[1][product])
    with pytest.raises(FailedJobsError, match="1 jobs failed"):
        RUN[stage].run(context)
    bring_back()
    url = cube_of(context, stage)
    assert len(describe(url).failures) == 1
    # By now everything would be due, with another setting.
    options = {"max_gap_days": 2} if stage != "collocate" else {}
    again = context_of(root, driver_client, collocation={"min_samples": 32}, sample=options)
    chain.run([stage], replace(again, retry_failed=True))
    written = [set(c.metadata["done"]) for c in history(url) if c.metadata["stage"] == stage]
    tiles = [{name.split(" block")[0] for name in names} for names in written]
    assert {f"tile {TILE.row} {TILE.column + 1}"} in tiles[:2]
    assert describe(url).failures == {}


def overtake(monkeypatch, module, name, other):
    """Let somebody else publish as soon as ``module.name`` has planned."""
    plan = getattr(module, name)

    def planned(*args, **options):
        monkeypatch.setattr(module, name, plan)
        found = plan(*args, **options)
        other()
        return found

    monkeypatch.setattr(module, name, planned)


@pytest.mark.parametrize(("stage", "plan"), PLANS.items())
def test_a_plan_from_before_the_first_publication_is_not_carried_out(
    driver_client, root, monkeypatch, stage, plan
):
    context = context_of(root, driver_client)
    url = cube_of(context, stage)
    shutil.rmtree(url, ignore_errors=True)
    overtake(monkeypatch, RUN[stage], plan, lambda: RUN[stage].run(context))
    with pytest.raises(ConflictError, match="there was no cube, now main is at"):
        RUN[stage].run(context)
    theirs = history(url)
    RUN[stage].run(context)
    assert history(url) == theirs


def somebody_else(url, template):
    """A publication of somebody else, in a cube that may be new."""
    session = open_or_create(url, template).writable_session(MAIN)
    open_group(session.store, url).update_attributes({"by": "somebody else"})
    session.commit("theirs", {"stage": "ingest"})


@pytest.mark.parametrize("new", [True, False])
def test_land_and_forcing_planned_before_others_published_are_not_written(
    driver_client, root, monkeypatch, new
):
    context = context_of(root, driver_client)
    for file in ("smap_l4/SMAP_L4_SM_gph_20150331T013000_Vv7032_001.h5", "dem.nc"):
        (root / "granules" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "granules" / file).write_bytes(b"never read")
    land = static.read_land(context.paths.static)
    smap = product_template(PRODUCTS["smap_l4"], REGION)
    cases = (
        (static, "_jobs", context.paths.static, static_template(REGION), static.publish_static),
        (
            ingest,
            "find_work",
            context.paths.product("smap_l4"),
            smap,
            lambda context: ingest._ingest_product(context, "smap_l4", land),
        ),
    )
    for module, plan, url, template, run in cases:
        if new:
            shutil.rmtree(url)
        overtake(monkeypatch, module, plan, lambda u=url, t=template: somebody_else(u, t))
        with pytest.raises(ConflictError, match="since this run looked what is to do"):
            run(context)
        assert history(url)[0].message == "theirs"
