"""The predict stage on cubes of its own: jobs, provenance, refusals, memory."""

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from prediction_support import (
    N_VARIABLES,
    TILE,
    output_session,
    predict_job,
    write_inputs,
)
from rich.console import Console
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import deepprofile as dp
from deepprofile import grid
from deepprofile.model.flags import Flag
from deepprofile.model.precision import PRECISIONS
from deepprofile.model.streaming import Stretch
from deepprofile.recipe import Bounds, Predict, load_recipe
from deepprofile.stages import Context, StageError, predict
from deepprofile.stages.bands import bands
from deepprofile.stages.context import FailedJobsError, Paths
from deepprofile.stages.ingest import place_of
from deepprofile.stages.segments import LONGEST, JobSize, smallest_share
from deepprofile.stages.spans import make_jobs
from deepprofile.stages.static import read_land
from deepprofile.store import Region, Writer, done_jobs, history
from deepprofile.store.layout import BLOCK_DAYS, Block
from deepprofile.store.repository import MAIN, open_group, open_repository
from deepprofile.store.template import extend

WINDOW = 40
BOTH = Region((TILE.row, TILE.row + 1), (TILE.column, TILE.column + 2))
"""A tile with some land and one without any."""
N_DAYS = 5 * BLOCK_DAYS - 10


def noise(tile, block):
    """Forcing of a tile and block, all different, with gaps of two days around a boundary."""
    rng = np.random.default_rng([tile.column, block])
    values = rng.random((BLOCK_DAYS, N_VARIABLES, 56, 64), np.float32)
    values[-1 if block % 2 else 0, 3, 10] = np.nan
    return values


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict") / "root"
    land = np.zeros(BOTH.shape, bool)
    land[8:12, 5:9] = True
    return root, write_inputs(root, BOTH, 5, noise, land, WINDOW)


def names(*blocks):
    """Names of blocks in the ledger."""
    return {f"tile {TILE.row} {TILE.column} block {block}" for block in blocks}


def context_of(root, client, max_gap=3, **options):
    east, west = grid.longitudes()[[BOTH.columns.stop - 2, BOTH.columns.start + 1]]
    south, north = grid.latitudes()[[BOTH.rows.stop - 2, BOTH.rows.start + 1]]
    box = {"west": west, "south": south, "east": east, "north": north}
    document = {
        "name": "predict",
        "root": str(root),
        "period": {"start": "2015-03-31", "end": "2015-08-27"},
        "region": {side: float(value) for side, value in box.items()},
        "products": {name: {"url": "none"} for name in ("smap_l4", "era5_land", "gldas")},
        "terrain": {"urls": ["none"]},
        "sample": {"max_gap_days": max_gap},
        "training": {"window": WINDOW},
        "predict": {"blocks_per_job": 2, **options},
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    recipe = load_recipe(path)
    assert recipe.tiles == BOTH
    assert recipe.period.days == slice(0, N_DAYS)
    return Context(recipe, client, Console(record=True, width=200))


def test_the_stage_predicts_land_and_records_how(inputs, client):
    root, fingerprint = inputs
    context = context_of(root, client, device="cpu")
    summary = predict.run(context)
    cube = dp.open_cube(context.paths.coefficients)
    commits = [c for c in history(context.paths.coefficients) if c.metadata["stage"] == "predict"]
    assert len(commits) == 2  # blocks 1 and 2, blocks 3 and 4
    for commit in commits:
        assert commit.metadata["without_land"] == [f"{TILE.row} {TILE.column + 1}"]
    written = [set(commit.metadata["done"]) for commit in commits[::-1]]
    assert written == [names(1, 2), names(3, 4)]
    recorded = {"model": fingerprint, "precision": "float32", "device": "cpu"}
    assert {name: cube.attrs[name] for name in recorded} == recorded
    flag = cube["flag"].values
    counts = {value: int((flag[:, :, :64] == value).sum()) for value in np.unique(flag[:, :, :64])}
    assert counts[Flag.GAP_FILLED] > 0
    assert counts[Flag.NO_FULL_WINDOW] == 16 * (WINDOW - 1 - BLOCK_DAYS)
    assert f"{counts[Flag.GAP_FILLED]:,} gap filled" in summary
    assert (flag[:, :, 64:] == 255).all()
    lazy = dp.predict(
        dp.load_model(context.paths.model),
        dp.open_cube(context.paths.product("smap_l4"))["forcing"][:N_DAYS, :, 8:12, 5:9],
        dp.open_cube(context.paths.static)["auxiliary"][:, 8:12, 5:9],
    )
    np.testing.assert_array_equal(lazy["flag"][BLOCK_DAYS:].values, flag[:, 8:12, 5:9])
    assert predict.run(context).startswith("every day has its profile")


def test_neither_segments_nor_spans_change_what_a_job_writes(inputs, tmp_path):
    root, fingerprint = inputs
    results = []
    for name, blocks, segment in (
        ("a", range(1, 5), 4),
        ("b", range(1, 5), 1),
        ("c", range(3, 5), 2),
    ):
        session = output_session(tmp_path / name, blocks, N_DAYS)
        counts = predict.write_profiles(
            Writer(session), predict_job(root, fingerprint, blocks, N_DAYS, segment)
        )
        assert sum(counts.values()) == 56 * 64 * (N_DAYS - blocks[0] * BLOCK_DAYS)
        session.commit("profiles")
        results.append(dp.open_cube(tmp_path / name))
    whole, parts, later = (cube.load() for cube in results)
    np.testing.assert_array_equal(parts["flag"], whole["flag"])
    np.testing.assert_array_equal(later["flag"], whole["flag"][64:])
    # The engine's sums may differ in their last bits, and then be rounded to another 16 bits.
    for cube, days in ((parts, slice(None)), (later, slice(64, None))):
        np.testing.assert_allclose(
            cube["coefficients"], whole["coefficients"][days], rtol=2**-15, atol=1e-6
        )


# --- what is repeated ---


def noise_on_land(tile, block):
    values = np.zeros((BLOCK_DAYS, N_VARIABLES, 56, 64), np.float32)
    values[..., 8:12, 5:9] = noise(tile, block)[..., 8:12, 5:9]
    return values


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder with forcing of four blocks only, and the fingerprint of its model."""
    root = tmp_path_factory.mktemp("small") / "root"
    land = np.zeros(BOTH.shape, bool)
    land[8:12, 5:9] = True
    return root, write_inputs(root, BOTH, 4, noise_on_land, land, WINDOW)


@pytest.fixture
def own(small, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(small[0], tmp_path / "root")
    return tmp_path / "root"


def edit(url, change, **metadata):
    session = open_repository(url).writable_session(MAIN)
    change(session)
    session.commit("edit", metadata)


def ingest(root, block, text, change=None):
    """Note a block of forcing in the ledger, after a change of the cube."""
    url = Paths(str(root)).product("smap_l4")

    def note(session):
        open_group(session.store, url).update_attributes({"note": text})
        if change is not None:
            change(session)

    done = {place_of(Block(block), next(bands(BOTH))): text}
    edit(url, note, stage="ingest", done=done)


def add_a_block(root):
    def change(session):
        extend(open_group(session.store, ""), 5 * BLOCK_DAYS)
        writer = Writer(session)
        writer.write("forcing", writer.select(TILE, Block(4)), noise_on_land(TILE, 4))

    ingest(root, 4, "new", change)


def made(context, fingerprint, done=None):
    land = read_land(context.paths.static)
    return make_jobs(context, fingerprint, land, ["cpu"], done or {})


def entries(context, fingerprint):
    jobs = [job for group in made(context, fingerprint) for job in group]
    return {name: own for job in jobs for name, own in job.entries.items()}


def predictions(context):
    commits = history(context.paths.coefficients)[::-1]
    return [set(c.metadata["done"]) for c in commits if c.metadata["stage"] == "predict"]


def test_other_spans_hide_nothing_that_was_written_over(own, client):
    for options in (
        {"blocks_per_job": 24},
        {"blocks_per_job": 2, "max_gap": 2},
        {"blocks_per_job": 24},
    ):
        context = context_of(own, client, **options)
        assert "land cell-days" in predict.run(context)
        assert predict.run(context).startswith("every day has its profile")
    assert predictions(context) == [names(1, 2, 3), names(1, 2), names(3), names(1, 2, 3)]
    assert predict.run(context_of(own, client, blocks_per_job=1)).startswith("every day has")


def test_a_cube_names_all_settings_of_the_profiles_that_it_holds(own, client, monkeypatch):
    context = context_of(own, client, blocks_per_job=2)
    url = context.paths.coefficients

    def named():
        return dp.open_cube(url).attrs["max_gap_days"]

    assert "up to 2015-08-05, the last with forcing" not in predict.run(context)
    assert "up to 2015-08-05, the last with forcing" in predict.run(context)
    assert named() == "3"
    publish_stage, spans = predict.publish_stage, []

    def stop_after_one_span(*args, **options):
        if spans:
            raise KeyboardInterrupt
        spans.append(publish_stage(*args, **options))
        return spans[0]

    other = context_of(own, client, blocks_per_job=2, max_gap=0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predict, "publish_stage", stop_after_one_span)
        predict.run(other)
    assert named() == "0, 3"
    predict.run(other)
    assert named() == "0"


def test_jobs_read_the_forcing_that_they_were_planned_for(own, client, monkeypatch):
    context = context_of(own, client, blocks_per_job=24)

    def profiles():
        return dp.open_cube(context.paths.coefficients)["coefficients"].values

    def halve(session):
        writer = Writer(session)
        writer.write("forcing", writer.select(TILE, Block(2)), noise_on_land(TILE, 2) / 2)

    def overtaken(*args, **options):
        found = make_jobs(*args, **options)
        ingest(own, 2, "halved", halve)
        return found

    predict.run(context)
    before = profiles()
    ingest(own, 2, "the same in other granules")
    with monkeypatch.context() as patch:
        patch.setattr(predict, "make_jobs", overtaken)
        predict.run(context)
    assert predictions(context) == [names(1, 2, 3)] * 2
    np.testing.assert_array_equal(profiles(), before)
    predict.run(context)
    assert predictions(context)[2:] == [names(1, 2, 3)]
    assert not np.array_equal(profiles(), before, equal_nan=True)


def test_a_span_whose_every_job_fails_holds_up_no_other(own, client):
    context = context_of(own, client, blocks_per_job=1)
    forcing = Paths(str(own)).product("smap_l4")
    store = open_repository(forcing).readonly_session(MAIN).store
    shard = sync(store.get("forcing/c/0/0/0/0", default_buffer_prototype())).to_bytes()
    (file,) = [f for f in Path(forcing, "chunks").iterdir() if f.read_bytes() == shard]
    file.rename(own / "hidden")
    with pytest.raises(FailedJobsError, match=r"predict: 2 jobs failed(.|\n)*blocks 1 to 1: "):
        predict.run(context)
    assert set(done_jobs(context.paths.coefficients, "predict")) == names(3)
    (own / "hidden").rename(file)
    predict.run(context)
    assert set(done_jobs(context.paths.coefficients, "predict")) == names(1, 2, 3)


def test_a_block_more_predicts_the_blocks_that_it_touches(own, client, tmp_path):
    context = context_of(own, client, blocks_per_job=24)
    predict.run(context)
    last = dp.open_cube(context.paths.coefficients)["flag"][-1].values
    assert (last[10, 5:9] == Flag.MISSING_FORCING).all()
    add_a_block(own)
    predict.run(context)
    # The gap at the end of block 3 can be filled now.
    assert predictions(context) == [names(1, 2, 3), names(3, 4)]
    grown = dp.open_cube(context.paths.coefficients).load()
    assert grown.sizes["time"] == N_DAYS - BLOCK_DAYS
    assert (grown["flag"][3 * BLOCK_DAYS - 1, 10, 5:9] == Flag.GAP_FILLED).all()
    shutil.move(context.paths.coefficients, tmp_path / "grown")
    predict.run(context)
    whole = dp.open_cube(context.paths.coefficients)
    np.testing.assert_array_equal(grown["flag"], whole["flag"])
    # As above: last bits of sums, rounded to 16 bits.
    np.testing.assert_allclose(grown["coefficients"], whole["coefficients"], rtol=2**-15, atol=1e-6)


def test_jobs_are_the_runs_of_outstanding_blocks_in_fixed_spans(inputs, client):
    root, fingerprint = inputs

    def ranges(done, **options):
        groups = made(context_of(root, client, **options), fingerprint, done)
        return [[(job.blocks, job.segment) for job in group] for group in groups]

    done = entries(context_of(root, client), fingerprint)
    second = {name: done[name] for name in names(2)}
    assert ranges({}, blocks_per_job=24) == [[(range(1, 5), 4)]]
    assert ranges(second, blocks_per_job=24) == [[(range(1, 2), 1), (range(3, 5), 2)]]
    assert ranges(second, blocks_per_job=3) == [
        [(range(1, 2), 1), (range(3, 4), 1)],
        [(range(4, 5), 1)],
    ]
    assert ranges({**done, **dict.fromkeys(names(4), "old")}) == [[(range(4, 5), 1)]]
    assert ranges(done) == []


def test_a_fingerprint_rests_on_the_blocks_own_inputs(own, small, client):
    fingerprint, context = small[1], context_of(own, client)
    before, recipe = entries(context, fingerprint), context.recipe

    def changed(context, model=fingerprint):
        after = entries(context, model)
        assert set(after) == set(before) == names(1, 2, 3)
        return {name for name in after if after[name] != before[name]}

    def with_part(name, **values):
        part = getattr(recipe, name).model_copy(update=values)
        return replace(context, recipe=recipe.model_copy(update={name: part}))

    for options in ({"device": "cpu"}, {"blocks_per_job": 1}, {"blocks_per_job": 24}):
        assert changed(context_of(own, client, **options)) == set()
    job = made(context, fingerprint)[0][0]
    assert replace(job, segment=1, device="cuda").entries == job.entries
    assert changed(context, "another") == names(1, 2, 3)
    assert changed(context_of(own, client, precision="bfloat16")) == names(1, 2, 3)
    assert changed(with_part("sample", max_gap_days=2)) == names(1, 2, 3)
    # Block 2 needs days from 64 - 42, block 1 all before it.
    assert changed(with_part("period", start=date(2015, 4, 1))) == names(1)
    ingest(own, 0, "replaced")
    assert changed(context) == names(1, 2)
    url = context.paths.static
    edit(url, lambda session: open_group(session.store, url).update_attributes({"new": "1"}))
    assert changed(context) == names(1, 2, 3)


# --- what is refused and planned ---


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so asking for it is right")
def test_a_gpu_that_no_worker_has_is_refused_before_any_work(inputs, client):
    root, _ = inputs
    with pytest.raises(StageError, match=r"device cuda .* 2 of 2 workers can't, .* finds no GPU"):
        predict.run(context_of(root, client, device="cuda"))
    with pytest.raises(StageError, match=r"precision tf32: .* on cuda devices only"):
        predict.run(context_of(root, client, precision="tf32"))


def test_the_recipe_knows_the_precisions_of_the_engine():
    for precision in PRECISIONS:
        assert Predict(precision=precision).precision == precision


def test_plan_counts_land_tiles_shards_and_cell_days(inputs, client):
    """At a coast: four tiles with 0, 168, 1,281 and 3,004 land cells in land_cells.csv."""
    coast = Bounds(west=-18.5, east=5.0, south=46.5, north=52.1)
    recipe = context_of(inputs[0], client).recipe.model_copy(update={"region": coast})
    assert recipe.tiles == Region((3, 4), (27, 31))
    made = predict.plan(recipe)
    assert made.jobs == 3 * 2
    shard = 32 * 56 * 64
    # blocks 1 and 2 need days 0 to 98, blocks 3 and 4 days 54 to 149
    assert made.work["read"] == made.bytes_read == 3 * (4 + 4) * shard * 4 * 39
    assert made.work["write"] == made.bytes_written == 3 * (2 + 2) * shard * 41
    land = 168 + 1281 + 3004
    assert made.work["engine"] == made.work["series"] == land * (N_DAYS - WINDOW + 1)


# --- memory ---


def year_of(n_blocks):
    return Stretch(range(12, 12 + n_blocks), (0, 1000), (362, 3), BLOCK_DAYS)


def test_segments_are_as_long_as_the_memory_allows():
    size, stretch = JobSize(56 * 64, N_VARIABLES, 10), year_of(18)
    memories = [size.memory(stretch, length) for length in range(1, LONGEST + 1)]
    assert sorted(set(memories)) == memories
    assert size.segment(stretch, None) == LONGEST
    assert size.segment(stretch, memories[4]) == 5
    assert size.segment(stretch, -1000) == 1
    assert JobSize(100, N_VARIABLES, 10).segment(stretch, memories[4]) == LONGEST
    assert size.segment(year_of(3), None) == 3


def measure(root, fingerprint, blocks, segment, n_days):
    """Peak of the resident memory of this process in bytes while it runs a job."""
    session = output_session(f"{root}/segments of {segment}", blocks, n_days)
    Path("/proc/self/clear_refs").write_text("5")
    predict.write_profiles(Writer(session), predict_job(root, fingerprint, blocks, n_days, segment))
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def mostly_constant(tile, block):
    if block == 8:
        return np.random.default_rng(0).random((BLOCK_DAYS, N_VARIABLES, 56, 64), np.float32)
    return np.full((BLOCK_DAYS, N_VARIABLES, 56, 64), block / 20, np.float32)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_the_peak_of_a_job_is_as_predicted(tmp_path):
    region, n_days = Region((TILE.row, TILE.row + 1), (TILE.column, TILE.column + 1)), 14 * 32
    fingerprint = write_inputs(tmp_path, region, 14, mostly_constant, np.ones((56, 64), bool))
    size, cluster = JobSize(56 * 64, N_VARIABLES, 10), tmp_path / "one.yaml"
    cluster.write_text("workers: 1\nmemory_limit: 4GiB\n")
    with dp.connect(cluster) as client:
        assert smallest_share(client, 2**30) == pytest.approx((0.8 * 4 - 1) * 2**30)
        for blocks, segment in ((range(13, 14), 1), (range(11, 14), 3)):
            stretch = Stretch(blocks, (0, n_days), (362, 3), BLOCK_DAYS)
            predicted = size.worker_memory + size.memory(stretch, segment)
            measured = client.submit(measure, str(tmp_path), fingerprint, blocks, segment, n_days)
            assert 0.85 * predicted < measured.result() < 1.15 * predicted, (segment, predicted)
