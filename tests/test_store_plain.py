"""Plain copies of a cube: read by xarray alone, and never half."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from store_support import jobs, publish_all

from deepprofile.store import CubeError, copy_plain, history, open_cube
from deepprofile.store.plain import _finish_rename

READ = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("deepprofile", "icechunk"):
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Absent())
for name in ("deepprofile", "icechunk"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " can be imported")
import xarray as xr
copy = xr.open_zarr(sys.argv[1], consolidated=True, chunks=None, decode_coords="all")
copy.load().to_netcdf(sys.argv[2])
"""


@pytest.fixture
def url(client, tmp_path):
    path = str(tmp_path / "era5")
    publish_all(client, path, jobs())
    publish_all(client, path, jobs(offset=5)[:1])
    return path


def plain(path):
    return xr.open_zarr(path, chunks=None, decode_coords="all").load()


def without_attributes(dataset):
    """As they are compared here: the copy has attributes of its own."""
    return dataset.load().drop_attrs(deep=False)


def test_a_copy_opens_without_our_packages(client, url, tmp_path):
    copied = copy_plain(url, tmp_path / "plain", client=client)
    target = tmp_path / "read.nc"
    subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "plain"), str(target)],
        check=True,
        cwd=tmp_path,
    )
    with xr.open_dataset(target, decode_coords="all") as read:
        xr.testing.assert_equal(read.load(), open_cube(url).load())
        assert read.attrs["deepprofile_snapshot"] == copied.snapshot_id
        assert read.attrs["deepprofile_source"] == url
    chunks = [f for f in (tmp_path / "plain").rglob("*") if f.is_file() and f.name != "zarr.json"]
    assert len(chunks) == copied.shards
    assert sum(f.stat().st_size for f in chunks) == copied.bytes
    raw = {f.read_bytes() for f in chunks if f.stat().st_size > 1000}
    assert raw <= {f.read_bytes() for f in Path(url, "chunks").iterdir()}


def test_layout_codecs_and_attributes_are_the_same(client, url, tmp_path):
    copy_plain(url, tmp_path / "plain", client=client)
    document = json.loads((tmp_path / "plain" / "zarr.json").read_text())
    assert "soil_moisture" in document["consolidated_metadata"]["metadata"]
    copy, cube = plain(tmp_path / "plain"), open_cube(url, chunks=None).load()
    assert without_attributes(copy).identical(without_attributes(cube))
    assert {k: copy.attrs[k] for k in cube.attrs} == cube.attrs
    assert copy["soil_moisture"].encoding["shards"] == cube["soil_moisture"].encoding["shards"]


def test_an_older_snapshot_is_copied(client, url, tmp_path):
    first = [c for c in history(url) if c.metadata["stage"] == "ingest"][-1]
    for name, wanted in (("a", first.snapshot_id), ("b", first.time.isoformat())):
        copy_plain(url, tmp_path / name, client=client, snapshot=wanted)
        old = open_cube(url, snapshot=first.snapshot_id)
        assert without_attributes(plain(tmp_path / name)).identical(without_attributes(old))


def test_only_copies_are_overwritten(client, url, tmp_path):
    output = tmp_path / "plain"
    first = history(url)[0].snapshot_id
    copy_plain(url, output, client=client)
    publish_all(client, url, jobs(offset=9)[:1])
    with pytest.raises(CubeError, match="--overwrite"):
        copy_plain(url, output, client=client)
    assert plain(output).attrs["deepprofile_snapshot"] == first
    copy_plain(url, output, client=client, overwrite=True)
    assert without_attributes(plain(output)).identical(without_attributes(open_cube(url)))
    other = tmp_path / "papers"
    other.mkdir()
    (other / "thesis.tex").write_text("all of it")
    for place in (other, url):
        with pytest.raises(CubeError, match=r"is no copy of a cube|is the cube itself"):
            copy_plain(url, place, client=client, overwrite=True)
    assert (other / "thesis.tex").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["era5", "era5.lock", "papers", "plain"]


def test_a_damaged_shard_is_not_copied_and_nothing_is_left(client, url, tmp_path):
    file = max(Path(url, "chunks").iterdir(), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:-10])
    output = tmp_path / "out" / "plain"
    with pytest.raises(CubeError, match="deepprofile verify"):
        copy_plain(url, output, client=client)
    assert list(output.parent.iterdir()) == []


def test_a_copy_that_was_killed_between_its_renames_is_completed(tmp_path):
    """The states that SIGKILL leaves: before, between and after the two renames."""
    for state in ("between", "after", "old alone"):
        path = tmp_path / state / "out.zarr"
        part = path.with_name(".out.zarr.part-0123abcd")
        old = path.with_name(f"{part.name}.old")
        whole = {"between": part, "after": path, "old alone": old}[state]
        for folder in {old, whole}:
            folder.mkdir(parents=True)
            (folder / "zarr.json").write_text("old" if folder == old else "new")
        _finish_rename(path)
        expected = "old" if state == "old alone" else "new"
        assert (path / "zarr.json").read_text() == expected
        assert list(path.parent.iterdir()) == [path]
        _finish_rename(path)  # nothing more to do
        assert list(path.parent.iterdir()) == [path]
