"""Old states of a cube: by identity, by date, and after expiry; the ledger through all of it."""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from store_support import (
    N_DAYS,
    REGION,
    BlockJob,
    jobs,
    moisture,
    publish_all,
)

from deepprofile.store import (
    AllFailedError,
    Block,
    Commit,
    ConflictError,
    CubeError,
    PublicationError,
    archive,
    describe,
    done_jobs,
    expire,
    history,
    open_cube,
    settings_of,
)
from deepprofile.store.archive import fold
from deepprofile.store.ledger import FAILED_RUNS, done_in, failed_pieces, listed_on, open_failures
from deepprofile.store.repository import exclusive, open_repository
from deepprofile.store.snapshots import moment_of, shown_at

LATER = timedelta(microseconds=1)


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "era5")


@pytest.fixture(scope="module")
def original(client, tmp_path_factory):
    """A cube after four publications: all, one piece revised, one failing, longer."""
    url = str(tmp_path_factory.mktemp("original") / "era5")
    ids = [publish_all(client, url, jobs(), settings={"bits": "12"}, set_aside=[{"url": "a.nc"}])]
    ids.append(publish_all(client, url, jobs(offset=5)[:1], settings={"bits": "16"}))
    work = [*jobs(offset=6)[1:2], *jobs(fault="always")[3:]]
    ids.append(publish_all(client, url, work, short_days=["2015-04-01"], without_land=["28 99"]))
    ids.append(publish_all(client, url, jobs(50, offset=7)[2:3], n_days=50))
    return url, ids


@pytest.fixture
def published(original, url):
    """Identities of the four publications of a copy of that cube at ``url``."""
    shutil.copytree(original[0], url)
    return original[1]


def files_of(url):
    return {path: path.stat().st_size for path in Path(url).rglob("*") if path.is_file()}


def ledger_of(url):
    found = describe(url)
    return (
        done_jobs(url, "ingest"),
        settings_of(url, "ingest"),
        open_failures(history(url)),
        found.set_aside,
        found.short_days,
        found.without_land,
        found.pieces,
        found.holes,
    )


def time_of(url, snapshot):
    return next(commit.time for commit in history(url) if commit.snapshot_id == snapshot)


def test_a_snapshot_opens_by_identity_and_by_moment(url, published):
    times = [time_of(url, snapshot) for snapshot in published]
    expected = moisture()
    np.testing.assert_array_equal(
        open_cube(url, snapshot=times[0], chunks=None)["soil_moisture"].values, expected
    )
    assert open_cube(url, snapshot=published[0]).identical(open_cube(url, snapshot=times[0]))
    revised = open_cube(url, snapshot=times[2] - LATER, chunks=None)["soil_moisture"]
    np.testing.assert_array_equal(revised[:32, :, :, :64].values, moisture(offset=5)[:32, ..., :64])
    np.testing.assert_array_equal(revised[32:].values, expected[32:])
    text = times[1].astimezone(UTC).replace(tzinfo=None).isoformat()
    assert open_cube(url, snapshot=text).identical(open_cube(url, snapshot=published[1]))
    today = times[-1].date()
    assert open_cube(url, snapshot=today).identical(open_cube(url))
    assert open_cube(url, snapshot=today.isoformat()).identical(open_cube(url))


def test_no_moment_shows_a_structure_without_its_data(url, published):
    every = history(url)
    structures = [c for c in every if c.metadata.get("stage") == "structure"]
    assert len(structures) == 2
    last = open_cube(url, snapshot=structures[0].time)
    assert last.identical(open_cube(url, snapshot=published[2]))
    assert last.sizes["time"] == N_DAYS
    for commit in structures[1:] + every[-1:]:
        with pytest.raises(CubeError, match=r"nothing was published yet.*4 snapshots"):
            open_cube(url, snapshot=commit.time)


def test_what_does_not_exist_is_named_with_what_does(url, published):
    with pytest.raises(CubeError, match=f"nothing was published yet at 2015.*{published[0]}"):
        open_cube(url, snapshot="2015-01-01")
    with pytest.raises(CubeError, match=f"has no snapshot 0{'1' * 19}.*{published[-1]}"):
        open_cube(url, snapshot="0" + "1" * 19)
    with pytest.raises(CubeError, match=r"no snapshot 15\.8\.2016.*such as 2016-08-15"):
        open_cube(url, snapshot="15.8.2016")


def test_moments():
    def commit(hour, stage="ingest"):
        when = datetime(2016, 8, 15, hour, tzinfo=UTC)
        return Commit(f"at {hour}", when, "", {"stage": stage})

    log = [commit(23), commit(22, "structure"), commit(12), commit(6), commit(5, "create")]

    def shown(wanted):
        found = shown_at(log, moment_of(wanted))
        return found and found.snapshot_id

    assert shown("2016-08-15") == shown(date(2016, 8, 15)) == "at 23"
    assert shown("2016-08-15T12:00") == shown(datetime(2016, 8, 15, 12)) == "at 12"
    assert shown("2016-08-15T11:59:59") == "at 6"
    assert shown("2016-08-15T13:59:59+02:00") == "at 6"
    assert shown("2016-08-15T22:30") == "at 12"
    assert shown("2016-08-14") is None
    assert shown("2016-08-15T05:30") is None


def test_expiry_frees_what_it_says_and_changes_nothing_else(client, url, published):
    before, data, files = ledger_of(url), open_cube(url).load(), files_of(url)
    first = time_of(url, published[0])
    now = datetime.now(UTC)
    planned = expire(url, now, dry_run=True)
    assert files_of(url) == files
    assert planned.snapshots == [c.snapshot_id for c in history(url)[1:]]
    done = expire(url, now)
    left = files_of(url)
    gone = {path: size for path, size in files.items() if path not in left}
    assert (done.snapshots, done.objects) == (planned.snapshots, len(gone))
    assert done.bytes == sum(gone.values())
    assert planned.bytes == sum(size for path, size in gone.items() if path.parent.name == "chunks")
    assert planned.bytes > 10_000
    assert sum(files.values()) - sum(left.values()) == pytest.approx(done.bytes, abs=5_000)
    assert ledger_of(url) == before
    assert open_cube(url).load().identical(data)
    assert done.oldest.snapshot_id == published[-1]
    with pytest.raises(CubeError, match=f"{published[1]} has expired.*is 1 snapshot,"):
        open_cube(url, snapshot=published[1])
    with pytest.raises(CubeError, match=r"has expired \(`deepprofile gc`\)"):
        open_cube(url, snapshot=first)
    with pytest.raises(CubeError, match="nothing was published yet"):
        open_cube(url, snapshot="2016-01-01")
    again = expire(url, now)
    assert (again.snapshots, ledger_of(url)) == ([], before)


def test_what_readers_saw_since_the_moment_still_opens(url, published):
    kept = {i: open_cube(url, snapshot=i).load() for i in published[1:]}
    done = expire(url, time_of(url, published[2]))
    assert published[0] in done.snapshots
    for identity, data in kept.items():
        assert open_cube(url, snapshot=identity).load().identical(data)
    with pytest.raises(CubeError, match="expired"):
        open_cube(url, snapshot=published[0])


def test_the_ledger_goes_on_through_expiries_and_publications(client, url, published):
    head = open_repository(url).lookup_branch("main")
    before = ledger_of(url)
    expire(url, time_of(url, published[2]))
    assert ledger_of(url) == before
    assert open_repository(url).lookup_branch("main") == head
    publish_all(client, url, jobs(50, offset=8)[:1], n_days=50)
    before = ledger_of(url)
    expire(url, datetime.now(UTC))
    assert ledger_of(url) == before
    wanted = [*jobs(50, offset=8)[:1], *jobs(offset=6)[1:2], *jobs(50, offset=7)[2:3]]
    done = done_jobs(url, "ingest")
    assert [done[job.key] for job in wanted] == [job.fingerprint for job in wanted]
    assert describe(url).pieces == {"ingest": (4, 4)}


def test_the_jobs_of_a_failed_run_are_known_until_they_are_done(client, url, published):
    bad = jobs(50, offset=9, fault="always")[:1]
    before = done_jobs(url, "ingest")[bad[0].key]
    with pytest.raises(PublicationError, match="all 1 jobs failed"):
        publish_all(client, url, bad, n_days=50)
    failures = describe(url).failures
    assert bad[0].key in failures
    assert (history(url)[0].failed_run, done_jobs(url, "ingest")[bad[0].key]) == (True, before)
    publish_all(client, url, jobs(50, offset=8)[1:2], n_days=50)
    expire(url, datetime.now(UTC), dry_run=True)
    expire(url, datetime.now(UTC))
    assert expire(url, datetime.now(UTC)).snapshots == []
    assert describe(url).failures == failures
    publish_all(client, url, jobs(50, offset=9)[:1], n_days=50)
    assert bad[0].key not in describe(url).failures


def test_a_repaired_failure_does_not_come_back_with_an_expiry(client, url, published):
    before = open_failures(history(url))
    with pytest.raises(PublicationError, match="all 1 jobs failed"):
        publish_all(client, url, jobs(50, offset=9, fault="always")[:1], n_days=50)
    publish_all(client, url, jobs(50, offset=9)[:1], n_days=50)
    publish_all(client, url, jobs(50, offset=8)[1:2], n_days=50)
    pieces = failed_pieces(history(url))
    assert (open_failures(history(url)), pieces) == (before, set(before))
    expire(url, datetime.now(UTC))
    assert (open_failures(history(url)), failed_pieces(history(url))) == (before, pieces)
    assert listed_on(open_repository(url), FAILED_RUNS) == []


def test_failed_runs_keep_their_place_and_replace_each_other(client, url, published):
    for offset in (9, 10, 11):  # the first job twice, with another reason each time
        bad = jobs(50, offset=offset, fault="always")[offset % 2 : 2]
        with pytest.raises(AllFailedError, match="nothing was published") as caught:
            publish_all(client, url, bad, n_days=50)
        assert {failure.job.key for failure in caught.value.failed} == {job.key for job in bad}
    repository = open_repository(url)
    assert len(list(repository.ancestry(branch=FAILED_RUNS))) == 2
    assert "staging" not in " ".join(repository.list_branches())
    newest = publish_all(client, url, jobs(50, offset=8)[:1], n_days=50)
    order = [c.snapshot_id for c in history(url) if c.failed_run or c.snapshot_id in published]
    runs = [c for c in history(url) if c.failed_run]
    assert order == [*(c.snapshot_id for c in runs), *published[::-1]]
    assert history(url)[0].snapshot_id == newest
    assert jobs()[1].key in describe(url).failures


def test_two_expiries_at_once_are_a_conflict(client, url, published, monkeypatch):
    begin = archive._session

    def overtaken(repository):
        mine, theirs = begin(repository), begin(repository)
        zarr.open_group(theirs.store, mode="a").attrs["by"] = "somebody else"
        theirs.commit("theirs", {"commits": []})
        return mine

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_session", overtaken)
        with pytest.raises(ConflictError, match=r"somebody else expires.*run it again"):
            expire(url, datetime.now(UTC))
    before = ledger_of(url)
    expire(url, datetime.now(UTC))
    assert ledger_of(url) == before


def test_what_an_aborted_publication_left_goes_too(client, url, published):
    repository = open_repository(url)
    repository.create_branch("staging", published[0])
    assert len(expire(url, datetime.now(UTC)).snapshots) > 0
    with pytest.raises(Exception, match="snapshot not found"):
        repository.readonly_session(snapshot_id=published[0])


def test_nothing_expires_while_somebody_publishes(url, published):
    files = files_of(url)
    with exclusive(url), pytest.raises(ConflictError, match="another process is publishing"):
        expire(url, datetime.now(UTC))
    assert files_of(url) == files


def test_a_reader_of_an_expired_snapshot_gets_an_error_and_no_gaps(url, published):
    held = open_cube(url, snapshot=published[0], chunks=None)
    expire(url, datetime.now(UTC))
    with pytest.raises(Exception, match="not found"):
        held["soil_moisture"].values  # noqa: B018


def test_folding_keeps_what_counts():
    def commit(number, **metadata):
        when = datetime(2016, 1, number, tzinfo=UTC)
        return Commit(str(number), when, "", {"stage": "predict", **metadata})

    failure = {"job": "a to b", "error": "broken", "entries": ["a", "b"]}
    log = [
        commit(1, done={"a": "1", "b": "1", "c": "1"}, model="x"),
        commit(2, done={}, failed=[failure], set_aside=[{"url": "u"}]),
        commit(3, done={"a": "3"}, set_aside=[{"url": "u"}]),
        commit(4, done={"a": "4"}),
        commit(5, withdrawn=["c"], failed=[{"job": "c", "error": "bad", "entries": ["c"]}]),
    ][::-1]
    kept = {c.snapshot_id: c.metadata for c in fold(log)}
    assert {i: m.get("done") for i, m in kept.items() if m.get("done")} == {
        "4": {"a": "4"},
        "1": {"b": "1", "c": "1"},  # of c the days whose granules are gone must be known
    }
    assert done_in(fold(log)[::-1]) == done_in(log[::-1]) == {"a": "4", "b": "1"}
    assert kept["3"]["set_aside"] == [{"url": "u"}]
    assert "2" in kept  # its failure is open
    assert kept["5"]["withdrawn"] == ["c"]
    assert open_failures(fold(log)) == open_failures(log) == {"a to b": "broken", "c": "bad"}
    assert fold(fold(log)) == fold(log)
    replaced = [commit(3, done={"a": "3"}), commit(2, done={"a": "2"}), commit(1, done={"a": "1"})]
    assert [c.snapshot_id for c in fold(replaced)] == ["3", "1"]  # the first dates the cube


def test_folding_leaves_out_what_days_of_replaced_pieces_were_made_of():
    """Each day writes the last block anew; what it was made from on earlier days is replaced."""

    def commit(number, **pieces):
        when = datetime(2016, 1, number, tzinfo=UTC)
        made_of = {own: [f"made as {own}"] for own in pieces.values()}
        metadata = {"stage": "ingest", "done": pieces, "made_of": made_of}
        return Commit(str(number), when, "", metadata)

    log = [commit(4, a="4"), commit(3, a="3"), commit(2, a="2", b="2"), commit(1, a="1", c="1")]
    kept = {c.snapshot_id: c.metadata["made_of"] for c in fold(log)}
    assert kept == {"4": {"4": ["made as 4"]}, "2": {"2": ["made as 2"]}, "1": {"1": ["made as 1"]}}


def test_a_cube_that_shows_nothing_has_nothing_to_expire(client, url):
    first = publish_all(client, url, [BlockJob(next(REGION.tiles()), Block(0))])
    done = expire(url, datetime(2020, 1, 1, tzinfo=UTC))
    assert (done.snapshots, done.oldest) == ([], None)
    assert isinstance(open_cube(url, snapshot=first), xr.Dataset)
    with pytest.raises(CubeError, match="needs its zone"):
        expire(url, datetime(2020, 1, 1))
