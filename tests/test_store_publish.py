"""Write, audit, publish; and what readers see when something goes wrong on the way."""

import re

import icechunk
import numpy as np
import pytest
import zarr
from store_support import N_DAYS, jobs, moisture, template, write_block

from deepprofile.store import (
    ConflictError,
    LayoutMismatchError,
    NotACubeError,
    PublicationError,
    done_jobs,
    history,
    open_cube,
    publish,
    static_template,
)
from deepprofile.store.repository import exclusive, open_or_create, open_repository


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "cubes" / "era5")


def write(client, url, work=None, *, made=None, n_days=N_DAYS, metadata=None, **options):
    return publish(
        url,
        made or template(),
        n_days,
        write_block,
        jobs() if work is None else work,
        client=client,
        message="ingest era5",
        metadata={"stage": "ingest", "recipe": "demo", **(metadata or {})},
        **options,
    )


def head(url):
    return open_repository(url).lookup_branch("main")


def test_jobs_together_equal_the_whole(client, url):
    outcome = write(client, url)
    cube = open_cube(url)
    assert cube["soil_moisture"].data.npartitions > 1
    np.testing.assert_array_equal(cube["soil_moisture"].values, moisture())
    assert (cube["n_steps"].values == 24).all()
    assert sorted(outcome.done) == sorted(job.key for job in jobs())
    assert [result for _, result in outcome.results] == [24] * 4
    assert outcome.snapshot_id == head(url)
    assert cube.attrs["recipe"] == "demo"


def test_the_commit_log_is_the_ledger(client, url):
    write(
        client,
        url,
        metadata={"versions": {"zarr": "3"}},
        summarise=lambda results: {
            "set_aside": [{"url": "x.h5", "reason": "empty"}] * len(results)
        },
    )
    newest = history(url)[0]
    assert newest.message == "ingest era5"
    assert newest.metadata["stage"] == "ingest"
    assert newest.metadata["extent"]["n_days"] == N_DAYS
    assert newest.metadata["extent"]["first_day"] == "2015-03-31"
    assert len(newest.metadata["set_aside"]) == 4
    assert newest.metadata["failed"] == []
    assert open_cube(url).attrs["versions"] == "zarr 3"


def test_a_stage_goes_on_where_it_stopped(client, url):
    write(client, url, jobs()[:1])
    done = done_jobs(url, "ingest")
    assert done == {jobs()[0].key: jobs()[0].fingerprint}
    rest = [job for job in jobs() if job.key not in done]
    write(client, url, rest)
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture())
    assert done_jobs(url, "ingest") == {job.key: job.fingerprint for job in jobs()}
    assert done_jobs(url, "collocate") == {}


def test_the_latest_fingerprint_of_a_job_counts(client, url):
    write(client, url, jobs())
    write(client, url, jobs(offset=5)[:1])
    first = jobs()[0]
    assert done_jobs(url, "ingest")[first.key] == jobs(offset=5)[0].fingerprint
    write(client, url, [first])
    assert done_jobs(url, "ingest")[first.key] == first.fingerprint
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture())


def test_nothing_is_done_where_there_is_no_cube(url):
    assert done_jobs(url, "ingest") == {}


def test_the_time_axis_grows_and_the_tail_is_written_again(client, url):
    write(client, url)
    write(client, url, jobs(50)[2:], n_days=50)
    cube = open_cube(url)
    assert cube.sizes["time"] == 50
    np.testing.assert_array_equal(cube["soil_moisture"].values, moisture(50))


def test_without_jobs_only_the_extent_changes(client, url):
    write(client, url)
    outcome = write(client, url, [], n_days=64)
    assert outcome.done == []
    assert open_cube(url).sizes["time"] == 64


def test_a_job_that_fails_every_time_is_recorded_and_the_rest_is_published(client, url):
    work = [*jobs()[:3], *jobs(fault="always")[3:]]
    outcome = write(client, url, work)
    bad = work[3]
    assert [failure.job.key for failure in outcome.failed] == [bad.key]
    assert history(url)[0].metadata["failed"] == [
        {
            "job": bad.key,
            "error": "RuntimeError: this granule is broken",
            "entries": [bad.key],
        }
    ]
    assert done_jobs(url, "ingest") == {job.key: job.fingerprint for job in work[:3]}
    values = open_cube(url)["soil_moisture"].values
    np.testing.assert_array_equal(values[:32], moisture()[:32])
    # The first array of the failed job was written to the store, yet must not be seen.
    assert np.isnan(values[32:, :, :, 64:]).all()


def test_a_job_that_fails_once_is_tried_again(client, url, tmp_path):
    outcome = write(client, url, jobs(fault="once", marker=str(tmp_path / "tried")))
    assert (tmp_path / "tried").exists()
    assert outcome.failed == []
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture())


def test_a_killed_worker_costs_its_job_alone(client, url):
    work = [*jobs()[:3], *jobs(fault="kill")[3:]]
    outcome = write(client, url, work)
    assert sorted(outcome.done) == sorted(job.key for job in work[:3])
    (error,) = [failure.error for failure in outcome.failed]
    assert re.fullmatch(r"KilledWorker: \d+ workers died while they ran it\.[\w ,.;]+", error)


def test_when_every_job_fails_nothing_is_published(client, url):
    write(client, url)
    before = head(url)
    with pytest.raises(PublicationError, match=r"all 4 jobs failed.*this granule is broken"):
        write(client, url, jobs(fault="always"), retries=0)
    assert head(url) == before


def test_a_missing_shard_is_found_by_the_audit(client, url):
    write(client, url)
    before = head(url)
    with pytest.raises(PublicationError, match=r"\(7, 0, 0, 0\) of soil_moisture is missing"):
        write(client, url, jobs(fault="claim")[:1])
    assert head(url) == before


def test_what_the_callers_audit_finds_is_not_published(client, url):
    write(client, url)
    before = head(url)

    def audit(dataset):
        if float(dataset["soil_moisture"].max()) < 2:
            yield "soil moisture is suspiciously low"

    with pytest.raises(PublicationError, match="suspiciously low"):
        write(client, url, jobs(offset=5), audit=audit)
    assert head(url) == before
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture())


def test_two_jobs_that_write_one_shard_are_refused(client, url):
    class Twin(type(jobs()[0])):
        @property
        def key(self):
            return f"twin of {super().key}"

    twin = Twin(jobs()[0].tile, jobs()[0].block)
    with pytest.raises(PublicationError, match="both wrote shard"):
        write(client, url, [jobs()[0], twin])


def test_readers_see_the_old_cube_until_the_new_one_is_published(client, url):
    write(client, url)
    reader, lazy = open_cube(url, chunks=None), open_cube(url)
    seen = []

    def audit(dataset):
        np.testing.assert_array_equal(dataset["soil_moisture"].values, moisture(offset=9))
        seen.append(open_cube(url)["soil_moisture"].values)
        return []

    outcome = write(client, url, jobs(offset=9), audit=audit)
    np.testing.assert_array_equal(seen[0], moisture())
    np.testing.assert_array_equal(reader["soil_moisture"].values, moisture())
    np.testing.assert_array_equal(lazy["soil_moisture"].values, moisture())
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture(offset=9))
    by_snapshot = open_cube(url, snapshot=outcome.snapshot_id)
    np.testing.assert_array_equal(by_snapshot["soil_moisture"].values, moisture(offset=9))


def test_a_second_committer_on_a_local_disk_is_turned_away(client, url):
    with exclusive(url), pytest.raises(ConflictError, match="another process is publishing"):
        write(client, url)
    write(client, url)


def intrude(url, branch):
    """Commit to a branch as somebody else who holds no lock."""
    session = open_repository(url).writable_session(branch)
    zarr.open_group(session.store).update_attributes({"intruder": branch})
    return session.commit("somebody else")


def test_a_publication_by_somebody_else_meanwhile_is_a_conflict(client, url):
    write(client, url)
    theirs = []
    with pytest.raises(ConflictError, match="somebody else has published meanwhile"):
        write(
            client,
            url,
            jobs(offset=5),
            audit=lambda _: theirs.append(intrude(url, "main")) or [],
        )
    assert head(url) == theirs[0]
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture())
    write(client, url, jobs(offset=5))
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture(offset=5))


def test_a_publication_that_takes_over_the_staging_branch_is_a_conflict(client, url):
    write(client, url)
    before = head(url)
    once = []

    def progress(finished, _):
        if not once:
            once.append(intrude(url, "staging"))

    with pytest.raises(ConflictError, match="taken over the branch staging"):
        write(client, url, jobs(offset=5), on_progress=progress)
    assert head(url) == before


def test_another_template_is_refused_and_the_cube_stays(client, url):
    write(client, url)
    before = head(url)
    with pytest.raises(LayoutMismatchError, match="deepprofile_kind: found era5_land"):
        write(client, url, made=static_template(template().region))
    assert head(url) == before


def test_a_creation_that_was_cut_short_is_completed(client, url):
    icechunk.Repository.create(icechunk.local_filesystem_storage(url))
    with pytest.raises(NotACubeError, match="empty"):
        open_cube(url)
    write(client, url)
    np.testing.assert_array_equal(open_cube(url)["soil_moisture"].values, moisture())


def test_a_folder_that_is_no_cube_is_refused(client, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(NotACubeError, match="holds no cube"):
        open_or_create(tmp_path / "other", template())
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_metadata_without_a_stage_is_refused(client, url):
    with pytest.raises(ValueError, match="stage"):
        publish(url, template(), 1, write_block, [], client=client, message="no stage", metadata={})
