"""Damage that is done to a cube is found, named and repaired."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from store_support import jobs, publish_all
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from deepprofile.cli import main
from deepprofile.store import (
    AllFailedError,
    CubeError,
    StoreError,
    describe,
    done_jobs,
    expire,
    history,
    open_cube,
    render_verification,
    repair,
    verify,
)
from deepprofile.store.cube import session_at
from deepprofile.store.failed_runs import dismiss
from deepprofile.store.ledger import open_failures
from deepprofile.store.repository import open_repository
from deepprofile.store.shard_check import unsound

SHARD = ("soil_moisture", (0, 0, 0, 1))
PIECE = "block 0 tile 28 60"


@pytest.fixture(scope="module")
def original(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "era5"
    publish_all(client, str(path), jobs())
    return path


@pytest.fixture
def url(original, tmp_path):
    shutil.copytree(original, tmp_path / "era5")
    return str(tmp_path / "era5")


def stored(url):
    """The file that holds SHARD."""
    key = f"{SHARD[0]}/c/" + "/".join(map(str, SHARD[1]))
    raw = sync(session_at(url).store.get(key, default_buffer_prototype())).to_bytes()
    (file,) = [f for f in Path(url, "chunks").iterdir() if f.read_bytes() == raw]
    return file


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(bytes(data))


def remove_end(file):
    file.write_bytes(file.read_bytes()[:-50])


def text_of(found):
    console = Console(width=250)
    with console.capture() as capture:
        console.print(render_verification(found))
    return capture.get()


@pytest.mark.parametrize("quick", [True, False])
def test_a_sound_cube_has_no_problems(client, url, quick):
    found = verify(url, client=client, quick=quick)
    assert found.problems == []
    checks = {check.name: check for check in found.arrays}
    assert [(c.expected, c.present) for c in checks.values()] == [(4, 4), (4, 4)]
    size = sum(f.stat().st_size for f in Path(url, "chunks").iterdir())
    assert checks["soil_moisture"].stored_bytes == pytest.approx(size, rel=0.1)
    every = 40 * 2 * 56 * 80
    assert checks["soil_moisture"].values == (None if quick else (every, every))
    assert "Problems: none" in text_of(found)


@pytest.mark.parametrize(
    ("damage", "quick", "what"),
    [
        (lambda file: flip(file, 100), False, "damaged.*checksum"),
        (lambda file: flip(file, -20), True, "index does not fit"),
        (lambda file: flip(file, -2), False, "checksum"),
        (remove_end, True, "shorter than it was written"),
        (remove_end, False, "shorter than it was written"),
        (Path.unlink, True, "gone from the store"),
        (Path.unlink, False, "gone from the store"),
    ],
)
def test_damage_is_found_named_and_repaired(client, url, damage, quick, what):
    sound = open_cube(url).load()
    damage(stored(url))
    found = verify(url, client=client, quick=quick)
    (problem,) = found.problems
    assert problem.shard == SHARD
    assert problem.piece.name == PIECE
    text = text_of(found)
    for expected in ("soil_moisture shard 0/0/0/1, tile 28 60, block 0", "--repair", "ingest"):
        assert expected in text
    assert re.search(what, problem.what)
    assert [piece.name for piece in repair(found)] == [PIECE]
    done = done_jobs(url, "ingest")
    assert len(done) == 3
    assert list(open_failures(history(url))) == [PIECE]
    assert describe(url).pieces == {"ingest": (3, 4)}
    publish_all(client, url, [job for job in jobs() if done.get(job.key) != job.fingerprint])
    assert verify(url, client=client).problems == []
    assert open_failures(history(url)) == {}
    xr.testing.assert_equal(open_cube(url).load(), sound)


def test_a_quick_check_reads_no_data(client, url):
    flip(stored(url), 100)
    assert verify(url, client=client, quick=True).problems == []


def test_holes_and_pieces_that_are_not_there(client, tmp_path):
    url = str(tmp_path / "era5")
    publish_all(client, url, jobs()[:3], without_land=[])
    found = verify(url, client=client)
    assert {p.shard for p in found.problems} == {
        ("n_steps", (1, 0, 1)),
        ("soil_moisture", (1, 0, 0, 1)),
    }
    assert all("a hole" in p.what and p.piece is None for p in found.problems)
    assert repair(found) == []


def test_a_piece_of_which_nothing_was_written_is_missing(client, tmp_path):
    url = str(tmp_path / "era5")
    publish_all(client, url, jobs())

    session = open_repository(url).writable_session("main")
    sync(session.store.delete("n_steps/c/1/0/1"))
    session.commit("somebody's accident", {"stage": "other"})
    (problem,) = verify(url, client=client, quick=True).problems
    assert problem.shard == ("n_steps", (1, 0, 1))
    assert "although the ledger says" in problem.what
    assert problem.piece.name == "block 1 tile 28 60"


def test_jobs_of_a_run_that_published_nothing_make_no_holes(client, tmp_path):
    url = str(tmp_path / "era5")
    publish_all(client, url, jobs()[::2])
    with pytest.raises(AllFailedError):
        publish_all(client, url, jobs(fault="always")[1::2])
    assert verify(url, client=client, quick=True).problems == []
    found = describe(url)
    assert (len(found.failures), found.pieces) == (2, {"ingest": (2, 4)})
    wanted, unwanted = (job.key for job in jobs()[1::2])
    dismiss(url, "ingest", [wanted])
    assert list(describe(url).failures) == [wanted]
    assert describe(url).pieces == {"ingest": (2, 3)}
    with pytest.raises(AllFailedError):  # it is wanted again
        publish_all(client, url, jobs(fault="always")[3:])
    assert set(describe(url).failures) == {wanted, unwanted}


def test_failures_of_publications_are_dismissed_too_but_nothing_that_was_withdrawn(client, url):
    stored(url).unlink()
    assert [piece.name for piece in repair(verify(url, client=client))] == [PIECE]
    publish_all(client, url, [*jobs(offset=5)[:1], *jobs(fault="always")[2:3]])
    failed = jobs()[2].key
    assert set(describe(url).failures) == {PIECE, failed}
    dismiss(url, "ingest", [])
    assert set(describe(url).failures) == {PIECE}
    expire(url, datetime.now(UTC))
    assert set(describe(url).failures) == {PIECE}


@pytest.mark.parametrize("folder", ["snapshots", "manifests", "refs/branch.main"])
def test_damaged_metadata_are_one_message(client, url, folder):
    for file in Path(url, folder).iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(StoreError, match=r"metadata of this cube are damaged.*from a copy"):
        describe(url)
    if folder != "manifests":
        with pytest.raises(StoreError, match="metadata of this cube are damaged"):
            verify(url, client=client)
        return
    found = verify(url, client=client).problems
    assert {p.what for p in found} == {"can't be read: I/O error (incomplete frame)"}


@pytest.mark.parametrize("size", [0.5, 30])
@pytest.mark.parametrize("folder", ["snapshots", "manifests"])
def test_a_cube_with_damaged_metadata_is_not_opened(url, folder, size):
    for file in Path(url, folder).iterdir():
        kept = size if size > 1 else int(size * file.stat().st_size)
        file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CubeError, match=r"metadata .*are damaged.*from a copy"):
        open_cube(url)
    with pytest.raises(StoreError, match="metadata of this cube are damaged"):
        describe(url)


def test_what_is_no_cube_is_told_and_nothing_is_left_beside_it(tmp_path, monkeypatch, capsys):
    for command in ("gc", "verify", "inspect"):
        monkeypatch.setattr("sys.argv", ["deepprofile", command, str(tmp_path / "nowhere")])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "nowhere: no such folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_values_that_contradict_each_other():
    steps = np.ones((2, 1, 2), np.uint8)
    moisture = np.full((2, 1, 1, 2), 0.2, np.float32)
    both = {"soil_moisture": moisture, "n_steps": steps}
    assert unsound("gldas", "soil_moisture", both) == []
    steps[1, 0, 0] = 0
    assert unsound("gldas", "soil_moisture", both) == ["1 cell-days have values but no time step"]
    moisture[1, 0, 0, 0] = np.nan
    assert unsound("gldas", "soil_moisture", both) == []
    moisture[0] = np.inf
    assert "2 values are infinite" in unsound("gldas", "soil_moisture", both)[0]
    flag = np.array([[[0, 2]], [[1, 255]]], np.uint8)
    coefficients = np.where(flag[:, None] < 2, 0.1, np.nan).astype(np.float32)
    profiles = {"coefficients": coefficients.repeat(10, axis=1), "flag": flag}
    assert unsound("coefficients", "coefficients", profiles) == []
    flag[0, 0, 1] = 0
    assert len(unsound("coefficients", "coefficients", profiles)) == 1
    mask = {"land": np.array([[0, 1, 2]], np.uint8)}
    assert len(unsound("static", "land", mask)) == 1


def test_blocks_before_the_first_of_the_ledger_are_no_holes(client, tmp_path):
    """The time axis begins before the period of the recipe does."""
    url = str(tmp_path / "era5")
    publish_all(client, url, [job for job in jobs() if job.block.index == 1])
    found = verify(url, client=client, quick=True)
    assert found.problems == []
    assert [check.expected for check in found.arrays] == [2, 2]
    summary = describe(url)
    assert summary.holes == []
    assert [array.percent for array in summary.arrays] == [100.0, 100.0]
