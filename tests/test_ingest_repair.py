"""What is ingested again: of withdrawn pieces, and where files of several folders share a name."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from rich.console import Console

from deepprofile.products import Gldas
from deepprofile.products.files import file_tags
from deepprofile.recipe import Period
from deepprofile.stages import Context
from deepprofile.stages.ingest_days import list_days
from deepprofile.stages.ingest_jobs import _whole, product_template
from deepprofile.stages.ingest_work import find_work
from deepprofile.store import expire, open_cube
from deepprofile.store.cube import session_at
from deepprofile.store.layout import Region, day_at
from deepprofile.store.packing import ShardError
from deepprofile.store.repository import open_or_create, open_repository
from deepprofile.store.template import array_of, extend

DAYS = 3
REGION = Region((28, 29), (59, 61))
LAND = np.ones(REGION.shape, dtype=bool)


@pytest.fixture
def context(tmp_path):
    """Three days of granules of one step each; nothing is ingested."""
    for day in range(DAYS):
        folder = tmp_path / f"gldas/{day}"
        folder.mkdir(parents=True)
        name = f"GLDAS_NOAH025_3H.A{day_at(day):%Y%m%d}.0000.021.nc4"
        (folder / name).write_bytes(b"granule")
    recipe = SimpleNamespace(
        root=str(tmp_path),
        tiles=REGION,
        period=Period(start=day_at(0), end=day_at(DAYS - 1)),
        products={"gldas": SimpleNamespace(url=str(tmp_path / "gldas"))},
        ingest=SimpleNamespace(min_fraction=0.75),
    )
    return Context(recipe, None, Console())


def publish(context, work):
    """Let the ledger say that the jobs are done."""
    repository = open_or_create(context.paths.product("gldas"), product_template(Gldas(), REGION))
    session = repository.writable_session("main")
    extend(zarr.open_group(session.store, mode="r+"), DAYS)
    done = {job.key: job.fingerprint for job in work.jobs}
    session.commit("ingest", {"stage": "ingest", "done": done, "made_of": work.made_of(work.jobs)})


def note(context, **metadata):
    session = open_repository(context.paths.product("gldas")).writable_session("main")
    zarr.open_group(session.store, mode="r+").attrs["changed"] = str(metadata)
    session.commit("verify", {"stage": "ingest", **metadata})


def withdraw(context, names):
    note(context, withdrawn=names)


def test_a_withdrawn_piece_keeps_the_days_whose_granules_are_gone(context, tmp_path):
    first = find_work(context, Gldas(), LAND)
    publish(context, first)
    assert find_work(context, Gldas(), LAND).jobs == []
    withdraw(context, [job.key for job in first.jobs])
    (job,) = find_work(context, Gldas(), LAND).jobs
    assert (job.fresh, job.fingerprint) == ((0, 1, 2), first.jobs[0].fingerprint)
    for file in (tmp_path / "gldas/1").iterdir():
        file.unlink()
    work = find_work(context, Gldas(), LAND)
    (job,) = work.jobs
    assert (job.fresh, job.kept, work.lost) == ((0, 2), (1,), (day_at(1),))
    assert (job.snapshot, job.fingerprint) == (work.snapshot, first.jobs[0].fingerprint)


def test_a_withdrawn_piece_keeps_such_days_also_when_its_commits_have_expired(context, tmp_path):
    first = find_work(context, Gldas(), LAND)
    publish(context, first)
    withdraw(context, [job.key for job in first.jobs])
    note(context, done={"another piece": "1"})
    assert len(expire(context.paths.product("gldas"), datetime.now(UTC)).snapshots) == 3
    for file in (tmp_path / "gldas/1").iterdir():
        file.unlink()
    work = find_work(context, Gldas(), LAND)
    (job,) = work.jobs
    assert (job.fresh, job.kept, work.lost) == ((0, 2), (1,), (day_at(1),))


def test_a_kept_day_that_cannot_be_read_is_an_error_that_says_what_to_do(context, tmp_path):
    work = find_work(context, Gldas(), LAND)
    publish(context, work)
    withdraw(context, [job.key for job in work.jobs])
    for file in (tmp_path / "gldas/1").iterdir():
        file.unlink()
    (job,) = find_work(context, Gldas(), LAND).jobs
    url = context.paths.product("gldas")
    session = open_repository(url).writable_session("main")
    array = array_of(zarr.open_group(session.store, mode="r+"), "soil_moisture")
    array[:, :, :56, :64] = np.float32(0.25)
    session.commit("values")
    file = max((tmp_path / "cubes/gldas/chunks").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    os.truncate(file, file.stat().st_size - 9)
    published = open_cube(url, snapshot=session_at(url).snapshot_id, chunks=None)
    read = np.zeros((DAYS, 3, 56, 64), np.float32)
    with pytest.raises(ShardError, match="bring back the granules of 2015-03-31 to 2015-04-01"):
        _whole(job, job.fresh, job.tiles[0], "soil_moisture", read, published)


def test_files_of_one_name_in_several_folders_are_told_apart(context, tmp_path):
    """A download of a month is called the same in each folder; here all three days are."""

    archive, granules = str(tmp_path / "gldas"), []
    for granule in Gldas().granules(archive, day_at(0), day_at(DAYS))[0]:
        path = Path(granule.url).rename(Path(granule.url).with_name("data.nc"))
        granules.append(replace(granule, url=str(path)))
    before = list_days(granules, file_tags(archive))
    Path(granules[0].url).write_bytes(b"another granule")
    after = list_days(granules, file_tags(archive))
    changed = [day for day in range(DAYS) if before.day(day, "s") != after.day(day, "s")]
    assert changed == [0]
