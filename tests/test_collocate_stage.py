"""The stage collocate on cubes of two tiles: block by block, again, with new and absent data."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import xarray as xr
import yaml
from collocation_series import three_series
from distributed import Client
from fault_support import NO_DASHBOARD
from prediction_support import note_ingested
from rich.console import Console

import deepprofile as dp
from deepprofile.benchmark import committed_writer
from deepprofile.collocation import Flag, anomalies, column
from deepprofile.products import PRODUCTS
from deepprofile.recipe import RecipeError, load_recipe
from deepprofile.stages import Context, StageError, collocate, collocate_columns, collocate_job
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Paths
from deepprofile.stages.ingest import place_of
from deepprofile.stages.ingest_jobs import product_template
from deepprofile.store import NotACubeError, Region, history, static_template
from deepprofile.store.layout import BLOCK_DAYS, Block, day_at
from deepprofile.store.repository import MAIN, open_group, open_or_create
from deepprofile.store.template import extend

NAMES = ("smap_l4", "era5_land", "gldas")
BOX = {"west": 22.7, "south": 40.4, "east": 26.5, "north": 40.5}
FIRST = 10  # the period begins within a block
LAND = np.s_[20:32, 50:80]  # of the region; in both tiles
SCALE = (1, 1, 0.4)
DRAW = collocate._draw
WORLD_DAYS = 6 * BLOCK_DAYS


@pytest.fixture(scope="module")
def thread() -> Iterator[Client]:
    """A worker in this process, which sees what a test changes."""
    with Client(n_workers=1, threads_per_worker=1, processes=False, **NO_DASHBOARD) as one:
        yield one


def context_of(folder: Path, client, n_days: int, **options) -> Context:
    recipe = {
        "name": "small",
        "root": str(folder / "root"),
        "period": {"start": str(day_at(FIRST)), "end": str(day_at(n_days - 1))},
        "region": BOX,
        "products": {name: {"url": "nowhere"} for name in NAMES},
        "terrain": {"urls": ["nowhere"]},
        "collocation": {"min_samples": 30, "bootstrap": 0, **options},
        "training": {"window": 40},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return Context(load_recipe(path), client, Console(record=True, width=400))


REGION = Region.from_bounds(**BOX)


def truth(n_days: int) -> list[np.ndarray]:
    """Columns of the three products, (days, cells of LAND); longer ones begin like shorter ones."""
    rows, columns = 12, 30
    series = three_series(400, rows * columns, gaps=0.05, errors=(0.02, 0.03, 0.04), seed=4)
    found = [values[:n_days].reshape(n_days, rows, columns).copy() for values in series]
    found[1][:, 0, 0] = 0.5 - found[1][:, 0, 0]  # a negative covariance
    return found


def write_product(
    root: Path,
    name: str,
    n_days: int,
    values: np.ndarray,
    since: int = 0,
    until: int | None = None,
    note: str = "first",
) -> None:
    """Blocks of a cube with these columns, whose layers differ, and what the ledger says of them.

    Args:
        root: the root of a recipe.
        name: of the product.
        n_days: length of the time axis.
        values: columns, (days, cells of LAND).
        since: the first block.
        until: the one after the last; by default that of ``n_days``.
        note: what the days are made from.
    """
    layers, repository = PRODUCTS[name].layers, product_cube(root, name)
    session = repository.writable_session(MAIN)
    extend(open_group(session.store, ""), n_days)
    if session.has_uncommitted_changes:
        session.commit("time")
    whole = np.full((n_days, len(layers), *REGION.shape), np.nan, np.float32)
    whole[:, :, *LAND] = values[:n_days, None]
    if len(layers) == 3:  # more at the top, less at the bottom, the same in all
        whole[:, 0] += 0.02 / layers[0].thickness
        whole[:, 2] -= 0.02 / layers[2].thickness
    numbers = range(since, -(-n_days // BLOCK_DAYS) if until is None else until)
    with committed_writer(repository) as writer:
        for tile in REGION.tiles():
            rows, columns = REGION.local(tile)
            for block in numbers:
                days = slice(block * BLOCK_DAYS, min((block + 1) * BLOCK_DAYS, n_days))
                part = np.ascontiguousarray(whole[days, :, rows, columns])
                writer.write("soil_moisture", writer.select(tile, Block(block)), part)
    note_blocks(repository, numbers, n_days, note)


def note_blocks(repository, numbers, n_days: int, note: str) -> None:
    """Let the ledger say, as ingest does, what each day of some blocks is made from."""
    session = repository.writable_session(MAIN)
    done, made_of = {}, {}
    for number in numbers:
        stop = min((number + 1) * BLOCK_DAYS, n_days)
        own = f"{note} {number} up to {stop}"
        done |= {place_of(Block(number), band): own for band in bands(REGION)}
        made_of[own] = [f"{note} {day}" for day in range(number * BLOCK_DAYS, stop)]
    open_group(session.store, "").update_attributes({"note": uuid4().hex})
    session.commit("ingest", {"stage": "ingest", "done": done, "made_of": made_of})


def write_static(root: Path) -> None:
    mask = np.zeros(REGION.shape, np.uint8)
    mask[LAND] = 1
    repository = open_or_create(Paths(str(root)).static, static_template(REGION))
    with committed_writer(repository) as writer:
        for tile in REGION.tiles():
            rows, columns = REGION.local(tile)
            writer.write("land", writer.select(tile), np.ascontiguousarray(mask[rows, columns]))


@pytest.fixture(autouse=True)
def _no_maps(monkeypatch) -> None:
    monkeypatch.setattr(collocate, "_draw", lambda summary, url: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Six whole blocks of the three products."""
    folder = tmp_path_factory.mktemp("world") / "root"
    write_static(folder)
    for name, values in zip(NAMES, truth(WORLD_DAYS), strict=True):
        write_product(folder, name, WORLD_DAYS, values)
    return folder


@pytest.fixture
def root(world, tmp_path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(world, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def read_days(monkeypatch) -> list[tuple[int, int]]:
    """Days that are read, once for each tile and product."""
    days: list[tuple[int, int]] = []
    read = collocate_columns.read_tile

    def noted_read(cube, array, tile, part):
        days.append(part)
        return read(cube, array, tile, part)

    monkeypatch.setattr(collocate_columns, "read_tile", noted_read)
    return days


def cube_of(context: Context) -> xr.Dataset:
    return dp.open_cube(context.paths.collocation).load()


def gather(context: Context) -> list[collocate_job._Gathered]:
    """What the jobs of a run add up, without a publication."""
    found = []
    for job in collocate._jobs(context):
        land = collocate_job.read_tile(job.static, "land", job.tile) == 1
        found.append(collocate_job._Gathered(job, land))
    return found


def assert_same_bits(found: list, expected: list) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.total.blocks == other.total.blocks
        for name in ("sums", "days_with", "present", "series"):
            np.testing.assert_array_equal(getattr(one.total, name), getattr(other.total, name))
        assert one.total.sums[0].max() > 30


def anew(context: Context) -> list[collocate_job._Gathered]:
    """The same from all blocks."""
    shutil.rmtree(context.paths.collocation_parts)
    return gather(context)


def product_cube(root: Path, name: str):
    return open_or_create(Paths(str(root)).product(name), product_template(PRODUCTS[name], REGION))


def lazy(context: Context, n_days: int, **options) -> xr.Dataset:
    """Collocation by the labelled face on the cells of LAND."""
    found = dp.triple_collocation(*columns(context, n_days), scale=SCALE, min_samples=30, **options)
    return found.isel(y=LAND[0], x=LAND[1]).compute()


def columns(context: Context, n_days: int) -> list[xr.DataArray]:
    cubes = (dp.open_cube(context.paths.product(name)) for name in NAMES)
    return [column(cube["soil_moisture"]).isel(time=slice(FIRST, n_days)) for cube in cubes]


def test_blocks_give_the_numbers_of_the_lazy_face(tmp_path, root, thread):
    n_days = 150
    options = {"extended": True, "bootstrap": 10, "bootstrap_cells": "all"}
    context = context_of(tmp_path, thread, n_days, **options)
    line = collocate.run(context)
    stage, face = cube_of(context), lazy(context, n_days, bootstrap=10, seed=1)
    inside = stage.isel(y=LAND[0], x=LAND[1])
    for name in set(face.data_vars) - {"weight", "valid_share"}:
        np.testing.assert_allclose(inside[name], face[name], rtol=2e-5, err_msg=name)
    valid = face["flag"].values == Flag.VALID
    np.testing.assert_allclose(
        inside["weight"].values[:, valid], face["weight"].values[:, valid], rtol=1e-5
    )
    assert face["flag"].values[0, 0] == Flag.NON_POSITIVE_COVARIANCE
    assert int((stage["flag"] != 255).sum()) == 360
    for value, count in zip(*np.unique(face["flag"].values, return_counts=True), strict=True):
        meaning = face["flag"].attrs["flag_meanings"].split()[value]
        assert value == Flag.VALID or f"{meaning} {100 * count / 360:.1f} %" in line
    medians = np.median(face["weight"].values[:, valid], axis=1)
    assert ", ".join(f"{n} {m:.3f}" for n, m in zip(NAMES, medians, strict=True)) in line
    assert not Path(context.paths.collocation_parts, "statistics").exists()


def test_new_months_only_add_to_what_is_stored(tmp_path, root, thread, read_days):
    collocate.run(context_of(tmp_path, thread, 140))  # 4 whole blocks and a part
    read_days.clear()
    context = context_of(tmp_path, thread, 190)
    collocate.run(context)
    assert {days[0] // BLOCK_DAYS for days in read_days} == {4, 5}
    noted = next(c.metadata for c in history(context.paths.collocation) if "days" in c.metadata)
    assert noted["days"] == [FIRST, 190]
    assert (noted["blocks_read"], noted["blocks_kept"]) == (4, 8)
    assert [len(blocks) for blocks in noted["made_of"].values()] == [6]
    face, inside = lazy(context, 190), cube_of(context).isel(y=LAND[0], x=LAND[1])
    for name in ("error_variance", "n_samples", "flag"):
        np.testing.assert_allclose(inside[name], face[name], rtol=1e-5)
    read_days.clear()
    collocate.run(context)
    assert not read_days


@pytest.mark.parametrize("as_anomalies", [False, True])
def test_what_was_added_has_the_bits_of_the_whole(
    tmp_path, root, read_days, monkeypatch, as_anomalies
):
    monkeypatch.setattr(collocate_job, "SPAN_BLOCKS", 2)
    options = {"bootstrap": 5, "bootstrap_cells": 40, "anomalies": as_anomalies}
    gather(context_of(tmp_path, None, 140, **options))
    read_days.clear()
    context = context_of(tmp_path, None, 190, **options)
    added = gather(context)
    # Of anomalies block 3 was open still, as they rest on 17 days around; days of block 2 are read.
    blocks = {days[0] // BLOCK_DAYS for days in read_days}
    assert blocks == ({2, 3, 4, 5} if as_anomalies else {4, 5})
    assert [one.n_read for one in added] == ([3, 3] if as_anomalies else [2, 2])
    assert_same_bits(added, anew(context))
    assert sum(one.series.shape[2] for one in added) == 40


def test_a_revised_block_is_replaced_with_its_span_alone(tmp_path, root, read_days, monkeypatch):
    monkeypatch.setattr(collocate_job, "SPAN_BLOCKS", 2)
    context = context_of(tmp_path, None, WORLD_DAYS)
    before = gather(context)
    read_days.clear()
    gather(context)
    assert not read_days
    values = truth(WORLD_DAYS)[2]
    values[3 * BLOCK_DAYS : 3 * BLOCK_DAYS + 5] *= 1.1
    write_product(root, "gldas", WORLD_DAYS, values, since=3, until=4, note="second")
    revised = gather(context)
    assert {days[0] // BLOCK_DAYS for days in read_days} == {2, 3}
    assert not np.array_equal(before[0].total.sums, revised[0].total.sums)
    assert_same_bits(revised, anew(context))


def test_a_run_that_was_stopped_goes_on_from_what_its_jobs_have_added_up(tmp_path, root, read_days):
    context = context_of(tmp_path, None, WORLD_DAYS)
    expected = gather(context)  # and nothing is published
    with pytest.raises(NotACubeError):
        cube_of(context)
    read_days.clear()
    assert_same_bits(gather(context), expected)
    assert not read_days


def test_stored_statistics_that_are_damaged_or_of_others_are_made_anew(tmp_path, root, read_days):
    context = context_of(tmp_path, None, 3 * BLOCK_DAYS)
    expected = gather(context)
    files = sorted(Path(context.paths.collocation_parts, "statistics").iterdir())
    for file, spoil in zip(files, (lambda b: b[:1000], _one_bit), strict=True):
        file.write_bytes(spoil(file.read_bytes()))
    again = gather(context)
    assert_same_bits(again, expected)
    for file, one in zip(files, again, strict=True):
        assert one.problem.startswith(f"{file}: can't be read")
    shutil.copyfile(files[0], files[1])  # of another tile
    again = gather(context)
    assert [(one.problem, one.n_read) for one in again] == [("", 0), ("", 3)]
    assert_same_bits(again, expected)


def _one_bit(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_sampling_errors_of_drawn_cells_and_maps(tmp_path, root, thread, monkeypatch):
    monkeypatch.setattr(collocate, "_draw", DRAW)
    context = context_of(tmp_path, thread, 130, bootstrap=20, bootstrap_cells=50)
    line = collocate.run(context)
    face = lazy(context, 130, bootstrap=20, seed=1)
    inside = cube_of(context).isel(y=LAND[0], x=LAND[1])
    maps = Path(context.paths.collocation_parts, "maps.png")
    written = maps.stat().st_mtime_ns
    assert maps.read_bytes().startswith(b"\x89PNG")
    collocate.run(context)
    assert maps.stat().st_mtime_ns == written
    drawn = np.isfinite(inside["error_variance_std"].values).all(axis=0)
    assert drawn.sum() == 50
    for name in ("error_variance_std", "weight_std"):
        np.testing.assert_allclose(
            inside[name].values[:, drawn], face[name].values[:, drawn], rtol=1e-5
        )
    valid = drawn & (face["flag"].values == Flag.VALID)
    shares = (face["weight_std"] / face["weight"]).values[:, valid]
    named = zip(NAMES, 100 * np.median(shares, axis=1), strict=True)
    assert "of the weight " + ", ".join(f"{n} {share:.0f}" for n, share in named) in line
    assert f"over {valid.sum()} valid cells" in line


def test_days_that_hold_no_bootstrap_block(tmp_path, root):
    context = context_of(tmp_path, None, 60, bootstrap=5)
    assert [job.replicates for job in collocate._jobs(context)] == [0, 0]
    said = context.console.export_text()
    assert "no sampling errors: 50 days hold no bootstrap block of 60" in said
    with pytest.raises(StageError, match=r"block of 60 days. Extend period"):
        collocate._jobs(context_of(tmp_path, None, 60, bootstrap=5, bootstrap_cells="all"))
    with pytest.raises(RecipeError, match="one replicate has no spread"):
        context_of(tmp_path, None, 60, bootstrap=1)


def test_anomalies_are_those_of_the_whole_series(tmp_path, root):
    context = context_of(tmp_path, None, 140, anomalies=True, bootstrap=5, bootstrap_cells=1000)
    found = gather(context)
    for product, values in enumerate(columns(context, 140)):
        expected = anomalies(values.values)[..., *LAND]
        series = np.concatenate([one.series[product].reshape(130, 12, -1) for one in found], axis=2)
        np.testing.assert_array_equal(series, expected)


def test_absent_products_are_named_with_their_days_and_cells(tmp_path, root, thread):
    series = truth(WORLD_DAYS)
    series[2][40:50] = np.nan  # no GLDAS for ten days
    series[1][:, :, :3] = np.nan  # no ERA5-Land in 36 cells
    for name, values in zip(NAMES[1:], series[1:], strict=True):
        write_product(root, name, 4 * BLOCK_DAYS, values)
    context = context_of(tmp_path, thread, 4 * BLOCK_DAYS)
    line = collocate.run(context)
    said = context.console.export_text()
    on_days = f"on 10 of {4 * BLOCK_DAYS - FIRST} days: {day_at(40)} to {day_at(49)}"
    assert f"gldas has no value {on_days}" in said
    assert "era5_land has no value on any day in 36 of 360 land cells (10.0 %)" in said
    assert "smap_l4 has" not in said
    assert "too_few_days 10.0 %" in line
    noted = [c.metadata for c in history(context.paths.collocation) if "absent" in c.metadata]
    assert noted[0]["absent"]["gldas"]["days"] == 10
    assert noted[0]["absent"]["era5_land"] == {"days": 0, "dates": "none", "cells": 36}
    weight = cube_of(context)["weight"].values[:, *LAND]
    np.testing.assert_allclose(weight[:, 1:, :3].sum(axis=0), 1, atol=1e-6)


def test_a_product_that_ends_early_or_is_not_ingested_somewhere(tmp_path, root):
    shutil.rmtree(root / "cubes/gldas")
    write_product(root, "gldas", 100, truth(100)[2], since=1)
    context = context_of(tmp_path, None, 130)
    found = gather(context)
    said = context.console.export_text()
    assert f"gldas ends on {day_at(99)}: 30 of 120 days of the period can't be collocated" in said
    assert "gldas was not ingested in block 0" in said
    assert 30 < found[0].total.sums[0].max() <= 100 - BLOCK_DAYS
    shutil.rmtree(root / "cubes/gldas")
    with pytest.raises(StageError, match=r"gldas has no cube .* run the stage ingest"):
        collocate._jobs(context)
    write_product(root, "gldas", 5, truth(5)[2])
    with pytest.raises(StageError, match=f"no day of the period .* gldas ends on {day_at(4)}"):
        collocate._jobs(context)


def test_a_block_that_the_ledger_does_not_know_is_read_after_any_publication(
    tmp_path, root, read_days
):
    shutil.rmtree(root / "cubes/gldas")
    write_product(root, "gldas", 96, truth(96)[2], since=1)
    context = context_of(tmp_path, None, 96)
    gather(context)
    read_days.clear()
    note_ingested(product_cube(root, "gldas"), REGION, [7])
    gather(context)
    assert {days[0] // BLOCK_DAYS for days in read_days} == {0, 1, 2}


def test_few_blocks_are_in_memory_at_a_time():
    taken = []
    results = collocate_columns._in_order(
        lambda item: -item, (taken.append(i) or i for i in range(40))
    )
    for number, result in enumerate(results):
        assert result == -number
        assert len(taken) - number <= collocate_columns.AHEAD
    assert len(taken) == 40
