from datetime import UTC, date, datetime

import pytest
from rich.console import Console
from store_support import LAYERS, N_DAYS, REGION, jobs, publish_all

from deepprofile.store import (
    Commit,
    NotACubeError,
    describe,
    render,
    samples_template,
)
from deepprofile.store.ledger import open_failures
from deepprofile.store.repository import open_or_create


def text_of(summary):
    console = Console(width=140, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(render(summary))
    return capture.get()


def test_a_full_cube(client, tmp_path):
    url = str(tmp_path / "era5")
    publish_all(client, url, jobs())
    summary = describe(url)
    assert (summary.kind, summary.region) == ("era5_land", REGION)
    assert summary.days == (date(2015, 3, 31), date(2015, 5, 9))
    moisture = next(array for array in summary.arrays if array.name == "soil_moisture")
    assert moisture.dims == {"time": N_DAYS, "layer": 2, "y": 56, "x": 80}
    assert moisture.chunk_bytes == 32 * 56 * 64 * 4
    assert moisture.shard_bytes == 2 * moisture.chunk_bytes
    assert (moisture.shards, moisture.present, moisture.percent) == (4, 4, 100.0)
    assert summary.holes == []
    assert summary.failures == {}
    assert summary.stored_bytes > 1000


def test_holes_failures_and_granules_set_aside(client, tmp_path):
    url = str(tmp_path / "era5")
    work = [*jobs()[:3], *jobs(fault="always")[3:]]
    publish_all(client, url, work, set_aside=[{"url": "s3://b/x.nc4", "reason": "truncated"}])
    summary = describe(url)
    assert summary.holes == [("n_steps", (1, 0, 1)), ("soil_moisture", (1, 0, 0, 1))]
    assert list(summary.failures) == [work[3].key]
    text = text_of(summary)
    for expected in ("era5_land", "75.0 %", "Holes: 2", "this granule is broken", "truncated"):
        assert expected in text
    publish_all(client, url, jobs()[3:])
    summary = describe(url)
    assert summary.holes == []
    assert summary.failures == {}
    assert "Failed jobs: none" in text_of(summary)


def test_a_failure_is_forgotten_when_other_jobs_have_written_all_its_pieces():
    def commit(**metadata):
        return Commit("id", datetime.now(UTC), "message", {"stage": "predict", **metadata})

    failure = {"job": "blocks 1 to 2", "error": "broken", "entries": ["block 1", "block 2"]}
    log = [
        commit(done={"block 1": "old", "block 2": "old"}),
        commit(failed=[failure], done={"block 3": "new"}),
    ]
    assert open_failures(log[::-1]) == {"blocks 1 to 2": "broken"}
    log.append(commit(done={"block 2": "new"}))
    assert open_failures(log[::-1]) == {"blocks 1 to 2": "broken"}
    log.append(commit(done={"block 1": "new"}))
    assert open_failures(log[::-1]) == {}
    log.append(commit(failed=[failure]))
    assert open_failures(log[::-1]) == {"blocks 1 to 2": "broken"}


def test_tiles_that_were_never_written_are_no_holes(client, tmp_path):
    url = str(tmp_path / "era5")
    publish_all(client, url, [job for job in jobs() if job.tile.column == 59])
    summary = describe(url)
    assert summary.holes == []
    assert all(array.percent == 50.0 for array in summary.arrays)


def test_tiles_without_land_are_named_and_not_counted(client, tmp_path):
    url = str(tmp_path / "coefficients")
    here = [job for job in jobs() if job.tile.column == 59]
    publish_all(client, url, here, without_land=["28 60"], model="c0ffee", precision="float32")
    summary = describe(url)
    assert summary.without_land == ["28 60"]
    assert (summary.model, summary.precision) == ("c0ffee", "float32")
    assert [(a.shards, a.present, a.percent) for a in summary.arrays] == [(2, 2, 100.0)] * 2
    assert summary.holes == []
    text = text_of(summary)
    for expected in ("Tiles without land, never scheduled: 1", "28 60", "c0ffee", "float32"):
        assert expected in text


def test_tiles_with_land_of_which_nothing_was_written_are_holes(client, tmp_path):
    url = str(tmp_path / "coefficients")
    publish_all(client, url, [job for job in jobs() if job.tile.column == 59], without_land=[])
    summary = describe(url)
    assert {position[-1] for _, position in summary.holes} == {1}
    assert len(summary.holes) == sum(array.shards - array.present for array in summary.arrays) > 0


def test_the_newest_model_and_its_precision_are_shown(client, tmp_path):
    url = str(tmp_path / "coefficients")
    publish_all(client, url, jobs(), model="older", precision="tf32", without_land=[])
    publish_all(client, url, jobs(offset=1), model="newer", precision="bfloat16", without_land=[])
    publish_all(client, url, jobs(offset=2))
    summary = describe(url)
    assert (summary.model, summary.precision) == ("newer", "bfloat16")
    assert "Tiles without land" not in text_of(summary)


def test_a_cube_without_region_or_days(tmp_path):
    cells = {"row": [1], "column": [2], "cell_class": ["core"], "split": ["train"]}
    url = tmp_path / "samples"
    open_or_create(url, samples_template(cells, {"rain": "mm"}, LAYERS))
    summary = describe(url)
    assert (summary.region, summary.days) == (None, None)
    assert {array.name for array in summary.arrays} == {"series", "auxiliary", "target", "weight"}
    assert "samples" in text_of(summary)


def test_nothing_to_describe(tmp_path):
    with pytest.raises(NotACubeError):
        describe(tmp_path / "nowhere")
