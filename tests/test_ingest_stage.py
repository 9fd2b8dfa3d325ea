"""Ingest day by day, with late, replaced and lost granules, equals one ingest of everything."""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from rich.console import Console

import deepprofile as dp
from deepprofile.products import PRODUCTS
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, chain, ingest, static, synthesize
from deepprofile.stages.context import FailedJobsError
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.stages.ingest_plan import plan
from deepprofile.store import describe, done_jobs, history
from deepprofile.store.ledger import commits_of, noted
from deepprofile.store.repository import open_repository

START, END, LAST = "2015-04-29", "2015-05-05", "20150505"  # block 1 begins on 2015-05-02
TILES = [(0, 0), (0, 1), (1, 0), (1, 1)]
KEPT = ("T0130", "T1030", "T1930", ".0300.", ".1200.", ".2100.")
SMAP_ARRAYS = ("forcing", "soil_moisture", "n_steps")
RECIPE = {
    "name": "arrivals",
    "synthetic": {"seed": 5, "size": 8},
    "period": {"start": START, "end": END},
    "region": {"west": 22.7, "south": 40.4, "east": 23.6, "north": 41.4},
    "products": {n: {"url": "{root}/earth/" + n} for n in ("smap_l4", "era5_land", "gldas")},
    "terrain": {"urls": ["{root}/earth/dem.nc"]},
    "ingest": {"blocks_per_commit": 2, "min_fraction": 0.25},
    "collocation": {"min_samples": 5},
}


def context_of(folder: Path, client, products=("smap_l4",), **changes) -> Context:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "root": str(folder / "work"), **changes}))
    recipe = load_recipe(path)
    chosen = {name: recipe.products[name] for name in products}
    recipe = recipe.model_copy(update={"products": chosen})
    return Context(recipe, client, Console(record=True, width=200))


@pytest.fixture(scope="module")
def earth(tmp_path_factory, client) -> Path:
    """Product files, of SMAP L4 and GLDAS three a day; nothing is ingested."""
    folder = tmp_path_factory.mktemp("earth")
    synthesize.run(context_of(folder, client))
    for name in ("smap_l4", "gldas"):
        for path in granules(folder, name):
            if not any(part in path.name for part in KEPT):
                path.unlink()
    return folder / "work" / "earth"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, client, earth) -> Path:
    """Folder in which everything was ingested in one run."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(earth, folder / "work" / "earth")
    ingest.run(context_of(folder, client, tuple(RECIPE["products"])))
    return folder


@pytest.fixture
def archive(whole, tmp_path) -> Path:
    """A copy of it to change; the granules are the same files to the ledger."""
    shutil.copytree(whole / "work", tmp_path / "work")
    return tmp_path


def granules(folder: Path, name: str) -> list[Path]:
    return sorted(p for p in (folder / "work/earth" / name).rglob("*") if p.is_file())


def deliver(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, place)


def of_day(files: list[Path], day: str) -> list[Path]:
    return [path for path in files if day in path.name]


def assert_same_bits(one: Path, other: Path, name: str) -> None:
    first, second = (dp.open_cube(f / "work/cubes" / name).load() for f in (one, other))
    assert first.sizes == second.sizes
    for array in first.data_vars:
        a, b = first[array].values, second[array].values
        kind = f"u{a.dtype.itemsize}"
        assert np.array_equal(a.view(kind), b.view(kind)), array
    assert np.isfinite(first["soil_moisture"].values).any()


def changed_shards(url: str, before: str) -> set[tuple[str, tuple[int, ...]]]:
    """Shards whose content differs between a snapshot and the head."""
    found = open_repository(url).diff(from_snapshot_id=before, to_branch="main").updated_chunks
    arrays = {path.strip("/"): places for path, places in found.items()}
    return {(name, tuple(at)) for name, places in arrays.items() if name != "time" for at in places}


def test_any_order_of_arrival_gives_the_bits_of_one_run(whole, earth, tmp_path, client):
    """Three deliveries in random order; three files hold other values first and are replaced."""
    rng = random.Random(1)
    target = tmp_path / "work" / "earth"
    target.mkdir(parents=True)
    shutil.copy2(earth / "dem.nc", target)
    names = tuple(RECIPE["products"])
    files = [p for name in names for p in sorted((earth / name).rglob("*")) if p.is_file()]
    rng.shuffle(files)
    early = {name: next(p for p in files if p.is_relative_to(earth / name)) for name in names}
    files = [*early.values(), *(p for p in files if p not in early.values())]
    third = len(files) // 3
    deliveries = files[:third], files[third : 2 * third], files[2 * third :]
    # Files of the second delivery that lie there before, with the values of another time.
    for path in [p for p in deliveries[1] if p.suffix == ".h5"][:3]:
        deliver(early["smap_l4"], target / path.relative_to(earth))
    for part in deliveries:
        for path in part:
            deliver(path, target / path.relative_to(earth))
        ingest.run(context_of(tmp_path, client, names))
    for name in names:
        assert len(history(tmp_path / "work/cubes" / name)) > 1
        assert_same_bits(whole, tmp_path, name)


def test_a_replaced_granule_is_read_with_its_day_alone_and_changes_its_block_alone(
    archive, whole, client
):
    context = context_of(archive, client)
    url = context.paths.product("smap_l4")
    before = history(url)[0].snapshot_id
    day = of_day(granules(archive, "smap_l4"), "20150504T")
    shutil.copyfile(day[0], archive / "other.h5")
    with h5py.File(archive / "other.h5", "r+") as file:
        file["Geophysical_Data/sm_surface"][...] = 0.25
    newer = day[0].with_name(day[0].name.replace("_001.h5", "_002.h5"))
    shutil.move(archive / "other.h5", newer)
    (change,) = ingest.update(context)
    assert (change.replaced, change.new, change.late, change.jobs) == (1, 0, 0, 1)
    assert [str(d) for d in change.remade] == ["2015-05-04"]
    assert change.added == ()
    expected = {(a, (1, *([0] * (a != "n_steps")), *t)) for a in SMAP_ARRAYS for t in TILES}
    assert changed_shards(url, before) == expected
    old, new = (dp.open_cube(f / "work/cubes/smap_l4").load() for f in (whole, archive))
    differ = (old["soil_moisture"] != new["soil_moisture"]) & old["soil_moisture"].notnull()
    days = old["time"][differ.any(["layer", "y", "x"]).values].values
    assert [str(d)[:10] for d in days] == ["2015-05-04"]
    newer.unlink()  # the older version stands for the same time: nothing is lost
    ingest.run(context_of(archive, client))
    assert_same_bits(whole, archive, "smap_l4")
    assert "all there already" in ingest.run(context_of(archive, client))


def test_a_job_reads_no_granule_of_another_day(archive, client):
    from deepprofile.stages.ingest_work import find_work
    from deepprofile.stages.static import read_land

    context = context_of(archive, client)
    touched = of_day(granules(archive, "smap_l4"), "20150430T")[-1]
    os.utime(touched, (1, 1))
    work = find_work(context, PRODUCTS["smap_l4"], read_land(context.paths.static))
    (job,) = work.jobs
    assert {Path(g.url).name[15:23] for g in job.granules} == {"20150430"}
    assert job.block.index == 0
    assert len(job.kept) == 31


def test_days_whose_granules_are_gone_stay_and_are_named(archive, whole, client):
    for path in of_day(granules(archive, "smap_l4"), "20150429T"):
        path.unlink()  # the first granules: the land mask was made from them
    before = [history(archive / "work/cubes" / n)[0].snapshot_id for n in ("static", "smap_l4")]
    context = context_of(archive, client)
    (change,) = ingest.update(context)
    after = [history(archive / "work/cubes" / n)[0].snapshot_id for n in ("static", "smap_l4")]
    assert after == before
    assert [str(day) for day in change.lost] == ["2015-04-29"]
    assert "granules are gone of 2015-04-29" in context.console.export_text()
    os.utime(of_day(granules(archive, "smap_l4"), "20150430T")[0], (1, 1))
    (change,) = ingest.update(context_of(archive, client))
    assert change.replaced == 1
    assert_same_bits(whole, archive, "smap_l4")
    assert "2015-04-29" in history(archive / "work/cubes/smap_l4")[0].metadata["lost_days"]
    (change,) = ingest.update(context_of(archive, client))
    assert change.lost == ()


def test_a_day_is_kept_where_a_granule_in_place_of_its_own_cannot_be_read(archive, whole, client):
    url = str(archive / "work/cubes/smap_l4")
    first, other, _ = of_day(granules(archive, "smap_l4"), "20150504T")
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])  # a copy that has not come to its end
    context = context_of(archive, client)
    (change,) = ingest.update(context)
    assert (change.failed, change.remade, change.added) == ((), (), ())
    assert [str(day) for day in change.kept] == ["2015-05-04"]
    assert "days with unreadable granules kept 2015-05-04" in change.line
    said = context.console.export_text()
    assert "kept as published: 2015-05-04" in said
    assert f"set aside {first}" in said
    assert list(history(url)[0].metadata["kept_days"]) == ["2015-05-04"]
    assert_same_bits(whole, archive, "smap_l4")
    assert "all there already" in ingest.run(context_of(archive, client))

    os.utime(other, (1, 1))  # good news of another granule waits: the day would lose an hour
    (change,) = ingest.update(context_of(archive, client))
    assert [str(day) for day in change.kept] == ["2015-05-04"]
    assert_same_bits(whole, archive, "smap_l4")

    first.write_bytes(content)
    (change,) = ingest.update(context_of(archive, client))
    assert (change.kept, [str(day) for day in change.remade]) == ((), ["2015-05-04"])
    assert_same_bits(whole, archive, "smap_l4")


def test_a_day_that_never_had_a_granule_does_not_wait_for_it(earth, tmp_path, client):
    shutil.copytree(earth, tmp_path / "work/earth")
    url = str(tmp_path / "work/cubes/smap_l4")
    first, other, _ = of_day(granules(tmp_path, "smap_l4"), "20150504T")
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    (change,) = ingest.update(context_of(tmp_path, client))
    assert (change.kept, len(change.added), change.set_aside) == ((), 7, 1)
    (place,) = noted(commits_of(url, "ingest"), "unread")
    assert history(url)[0].metadata["unread"] == {place: {"2": "2"}}  # 01:30 of the third day
    os.utime(other, (1, 1))
    (change,) = ingest.update(context_of(tmp_path, client))
    assert (change.kept, [str(day) for day in change.remade]) == ((), ["2015-05-04"])
    first.write_bytes(content)
    (change,) = ingest.update(context_of(tmp_path, client))
    assert (change.late, [str(day) for day in change.remade]) == (1, ["2015-05-04"])
    assert history(url)[0].metadata["unread"] == {place: {}}
    first.unlink()
    (change,) = ingest.update(context_of(tmp_path, client))
    assert [str(day) for day in change.lost] == ["2015-05-04"]


def test_another_setting_makes_every_day_anew(archive, client):
    context = context_of(archive, client, ingest={"blocks_per_commit": 2, "min_fraction": 1.0})
    (change,) = ingest.update(context)
    assert change.jobs == 2
    assert len(change.remade) == 7
    assert (change.new, change.late, change.replaced) == (0, 0, 0)


def test_a_complete_cube_is_complete_to_inspect_and_says_once_which_tiles_are_sea(archive):
    for name in ("smap_l4", "gldas"):
        summary = describe(archive / "work/cubes" / name)
        assert [array.percent for array in summary.arrays] == [100.0] * len(summary.arrays)
        assert not summary.holes
        noted = [c for c in summary.commits if "without_land" in c.metadata]
        assert len(noted) == 1


def test_a_day_more_writes_no_more_than_the_plan_says(earth, tmp_path, client):
    shutil.copytree(earth, tmp_path / "work/earth")
    held_back = of_day(granules(tmp_path, "smap_l4"), f"{LAST}T")
    for path in held_back:
        path.rename(tmp_path / path.name)
    short = {"start": START, "end": "2015-05-04"}
    ingest.run(context_of(tmp_path, client, period=short, collocation={"min_samples": 5}))
    for path in held_back:
        (tmp_path / path.name).rename(path)
    before = stored(tmp_path)
    context = context_of(tmp_path, client)
    (change,) = ingest.update(context)
    assert change.new == len(held_back)
    assert [str(day) for day in change.added] == ["2015-05-05"]
    written = stored(tmp_path) - before
    template = product_template(PRODUCTS["smap_l4"], context.recipe.tiles)
    raw = 4 * sum(array.chunk_bytes for array in template.arrays)
    bound = plan(context.recipe).append_written
    assert 0 < written <= bound < 1.1 * raw
    assert plan(context.recipe).append_read > raw


def stored(folder: Path) -> int:
    return sum(p.stat().st_size for p in (folder / "work/cubes/smap_l4").rglob("*") if p.is_file())


def test_a_block_whose_every_job_fails_holds_up_no_other(earth, whole, tmp_path, client):
    shutil.copytree(earth, tmp_path / "work/earth")
    kept = tmp_path / "kept"
    kept.mkdir()
    by_block = {"blocks_per_commit": 1, "min_fraction": 0.25}
    context = context_of(tmp_path, client, ("smap_l4", "gldas"), ingest=by_block)
    static.publish_static(context)
    context = replace(context, recipe=context.recipe.model_copy(update={"terrain": None}))
    smap = granules(tmp_path, "smap_l4")
    broken = [p for p in smap if "_201504" in p.name or "_20150501T" in p.name]
    for path in broken:
        shutil.copy2(path, kept)
        with h5py.File(path, "r+") as file:
            del file["Geophysical_Data/sm_surface"]
    with pytest.raises(FailedJobsError, match=r"ingest: 1 jobs failed.*\n  block 0 rows"):
        ingest.run(context)
    blocks = {
        name: [key.split()[1] for key in done_jobs(context.paths.product(name), "ingest")]
        for name in ("smap_l4", "gldas")
    }
    assert blocks == {"smap_l4": ["1"], "gldas": ["0", "1"]}
    (failed,) = describe(context.paths.product("smap_l4")).failures
    assert failed.startswith("block 0 rows")
    for path in broken:
        shutil.copy2(kept / path.name, path)
    chain.run(["ingest"], replace(context, retry_failed=True))
    assert describe(context.paths.product("smap_l4")).failures == {}
    assert_same_bits(tmp_path, whole, "smap_l4")


def test_only_jobs_that_failed_are_repeated(earth, tmp_path, client):
    shutil.copytree(earth, tmp_path / "work/earth")
    kept = tmp_path / "kept"
    kept.mkdir()
    broken = [
        p for p in granules(tmp_path, "smap_l4") if "201505" in p.name and "0501T" not in p.name
    ]
    for path in broken:
        shutil.copy2(path, kept)
        with h5py.File(path, "r+") as file:
            del file["Geophysical_Data/sm_surface"]
    context = context_of(tmp_path, client)
    (change,) = ingest.update(context)
    assert [failure.job.block.index for failure in change.failed] == [1]
    for path in broken:
        shutil.copy2(kept / path.name, path)
    os.utime(of_day(granules(tmp_path, "smap_l4"), "20150430T")[0], (1, 1))
    retry = Context(context.recipe, client, Console(record=True, width=200), retry_failed=True)
    chain.run(["ingest", "collocate"], retry)
    assert "no failed job to repeat" in retry.console.export_text()
    done = history(tmp_path / "work/cubes/smap_l4")[0].metadata["done"]
    assert [name.split()[1] for name in done] == ["1"]
    assert describe(tmp_path / "work/cubes/smap_l4").failures == {}
    (change,) = ingest.update(context)
    assert change.jobs == 1
    assert change.replaced == 1
