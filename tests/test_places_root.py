"""Roots that can't be written and granules that are not there: said before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest
from fault_support import fill

from deepprofile import cli
from deepprofile.operators import operation
from deepprofile.places import PlaceError
from deepprofile.places_root import writable
from deepprofile.store import StoreError

PIPELINES = Path(__file__).parent.parent / "pipelines"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line, which must not start a cluster: exit code and what it says."""
    monkeypatch.setattr(operation, "connected", lambda *_: pytest.fail("connected"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["deepprofile", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().err

    return call


def test_a_full_disk_is_named_before_a_cluster_is_started(small_disk, run):
    fill(small_disk)
    root = small_disk / "root"
    code, said = run("run", PIPELINES / "demo.yaml", "--root", root)
    assert code == 2
    assert f"error: {root}: the disk is full (0 B free at {small_disk}): " in said
    assert "Make room there" in said
    assert not root.exists()


def test_a_disk_that_becomes_full_is_named(small_disk):
    with pytest.raises(StoreError, match="the disk is full"), writable(str(small_disk)):
        (small_disk / "ballast").write_bytes(bytes(2**21))


def test_a_disk_that_is_only_read_is_named_before_a_cluster_is_started(small_disk, run):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    root = small_disk / "root"
    code, said = run("run", PIPELINES / "demo.yaml", "--root", root)
    assert code == 2
    assert f"error: {root}: can't be written: {small_disk}: Read-only file system. " in said
    assert "Make it so, or name another root" in said


def test_a_root_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match="can't be written"), writable(f"{tmp_path}/file/root"):
        pytest.fail("writable")


def test_a_root_that_can_be_written_is_left_as_it_is(tmp_path):
    with writable(str(tmp_path / "root")), writable("s3://bucket/root"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "keys"),
    [("run", {"smap_l4", "era5_land", "gldas"}), ("daily", {"smap_l4"})],
)
def test_granules_that_are_not_there_are_named_before_anything_is_made(
    run, tmp_path, command, keys
):
    """As in a recipe of the repository whose places nobody has edited."""
    recipe = PIPELINES / {"run": "global.yaml", "daily": "daily.yaml"}[command]
    code, said = run(command, recipe, "--root", tmp_path / "root")
    assert code == 2
    assert "there is no such file or folder" in said
    for key in keys:
        assert f"products.{key}.url: /your/place/" in said
    assert not list(tmp_path.iterdir())


def test_a_demo_earth_that_is_not_made_yet_is_named(run, tmp_path):
    code, said = run("run", PIPELINES / "demo.yaml", "--stage", "ingest", "--root", tmp_path)
    assert (code, "Run the stage synthesize first" in said) == (2, True)


def test_an_empty_root_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = run("run", PIPELINES / "demo.yaml", "--root", "")
    assert (code, "root: is empty" in said) == (2, True)
    assert not list(tmp_path.iterdir())
