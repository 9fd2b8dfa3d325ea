"""Reading granules: in threads, in parts, and while they change."""

import os
import tracemalloc
from datetime import date, timedelta

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
from test_products_latlon import write_gldas
from test_products_smap_l4 import COLUMNS, DAY, ROWS, TWO, write_day, write_granule

from deepprofile import grid
from deepprofile.products import Era5Land, Gldas, SmapL4
from deepprofile.products import era5_land as era5
from deepprofile.products.base import GranuleChangedError
from deepprofile.products.files import open_netcdf, unchanged
from deepprofile.products.latlon import _pieces
from deepprofile.products.ranges import open_source

CHUNKS = {
    "rows": {"chunks": (1, 300), "compression": "gzip"},
    "pieces of rows": {"chunks": (7, 90), "compression": "gzip", "shuffle": True},
    "one": {"chunks": (900, 300), "compression": "gzip", "fletcher32": True},
    "never written in part": {"chunks": (100, 300), "compression": "lzf", "fillvalue": -9999.0},
    "none": {},
}


def some_days(folder, n_days=3):
    """Days of different values, with gaps, a damaged granule and one on another grid."""
    rng = np.random.default_rng(1)
    paths = []
    for day in range(n_days):
        for hour in range(1, 24, 3):
            moisture = rng.uniform(0, 1.0, (6, 7)).astype("f4")
            moisture[rng.random((6, 7)) < 0.2] = -9999
            values = {"sm_surface": moisture}
            paths += write_day(folder, DAY + timedelta(days=day), (hour,), values=values)
    paths[10].write_bytes(paths[10].read_bytes()[:3000])
    with h5py.File(paths[3], "r+") as file:
        file["x"][...] = file["x"][...] + 4000.0
    paths[20].unlink()
    return paths


def hour_bits(time):
    """Number of the day, and the bit of the hour."""
    hour = int((time - np.datetime64(DAY)) // np.timedelta64(1, "h"))
    return hour // 24, 1 << hour % 24


def same(one, other):
    for name in ("values", "n_steps", "hours"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.short_days == other.short_days
    assert one.out_of_range == other.out_of_range
    names = [[item.url.rsplit("/", 1)[-1] for item in daily.set_aside] for daily in (one, other)]
    assert names[0] == names[1]


def test_threads_and_remote_files_give_the_same(tmp_path):
    paths = some_days(tmp_path)
    memory = fsspec.filesystem("memory")
    product = SmapL4(fields=TWO)
    stop = DAY + timedelta(days=3)
    windows = (ROWS, COLUMNS), (slice(498, 503), slice(904, 920))
    for path in paths:
        if path.exists():
            memory.pipe(f"/reading/{path.name}", path.read_bytes())
    try:
        for rows, columns in windows:
            local, _ = product.granules(str(tmp_path), DAY, stop)
            remote, _ = product.granules("memory://reading", DAY, stop)
            one = product.read_daily(local, DAY, 3, rows, columns)
            assert [item.url for item in one.set_aside] == [str(paths[3]), str(paths[10])]
            assert one.out_of_range["sm_surface"] > 0
            read = [
                hour_bits(g.start) for g in local if g.url not in {str(paths[3]), str(paths[10])}
            ]
            assert one.hours.tolist() == [sum(h for d, h in read if d == day) for day in range(3)]
            for threads in (2, 9):
                same(one, product.read_daily(local, DAY, 3, rows, columns, threads=threads))
            for threads in (1, 2):
                same(one, product.read_daily(remote, DAY, 3, rows, columns, threads=threads))
    finally:
        memory.rm("/reading", recursive=True)


def test_a_number_of_threads_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        SmapL4().read_daily([], DAY, 1, ROWS, COLUMNS, threads=0)


def test_an_error_in_a_thread_is_raised(tmp_path):
    paths = write_day(tmp_path) + write_day(tmp_path, day=DAY + timedelta(days=1))
    product = SmapL4(fields=TWO)
    granules, _ = product.granules(str(tmp_path), DAY, DAY + timedelta(days=2))
    paths[12].unlink()
    with pytest.raises(FileNotFoundError):
        product.read_daily(granules, DAY, 2, ROWS, COLUMNS, threads=2)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_of_a_remote_granule_only_what_is_needed_is_fetched_in_few_rounds(tmp_path, chunks):
    """A granule of 900 rows whose chunks do not compress; a window of 20 rows is read."""
    rows, columns = slice(300, 1200), slice(1000, 1300)
    rng = np.random.default_rng(0)
    values = {f.name: rng.uniform(f.valid_min, f.valid_max, (900, 300)) for f in TWO}
    path = write_granule(tmp_path / "a.h5", values, rows=rows, columns=columns)
    with h5py.File(path, "r+") as file:
        for field in TWO:
            name = f"Geophysical_Data/{field.name}"
            attributes = dict(file[name].attrs)
            del file[name]
            made = file.create_dataset(name, (900, 300), "f4", **CHUNKS[chunks])
            made.attrs.update(attributes)
            if "part" in chunks:
                values[field.name][410:] = np.nan
                made[400:410] = values[field.name][400:410]
            else:
                made[...] = values[field.name]
    memory = fsspec.filesystem("memory")
    memory.pipe("/reading/a.h5", path.read_bytes())
    reader = SmapL4(fields=TWO).reader(slice(700, 720), slice(1000, 1300))
    try:
        with open_source("memory://reading/a.h5") as (file, source):
            reader._read(file, source, "a.h5")
    finally:
        memory.rm("/reading", recursive=True)
    for field, found in zip(TWO, reader._values, strict=True):
        np.testing.assert_array_equal(found, values[field.name].astype("f4")[400:420])
    assert source.partial.rounds <= 12
    if chunks != "one":
        assert source.partial.fetched < path.stat().st_size / 3


# --- granules that change ---------------------------------------------------------------------


def changes_after(monkeypatch, module, name, change):
    """Call ``change`` once, after the first call of a function."""
    original, pending = getattr(module, name), [change]

    def wrapped(*args, **options):
        result = original(*args, **options)
        while pending:
            pending.pop()()
        return result

    monkeypatch.setattr(module, name, wrapped)


def replaced(path, content):
    """Replace a file as a download does: at once, under its name."""
    other = path.with_suffix(".part")
    other.write_bytes(content)
    other.replace(path)


def overwritten(path, content):
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [replaced, overwritten])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_granule_that_changes_while_it_is_read(tmp_path, monkeypatch, change, threads):
    from deepprofile.products import smap_l4

    paths = write_day(tmp_path) + write_day(tmp_path, day=DAY + timedelta(days=1))
    newer = write_granule(
        tmp_path / "newer" / "a.h5", {"sm_surface": np.full((6, 7), 0.8)}
    ).read_bytes()
    product = SmapL4(fields=TWO)
    granules, _ = product.granules(str(tmp_path), DAY, DAY + timedelta(days=1))
    granules = granules[:1]
    changes_after(monkeypatch, smap_l4, "_read_variable", lambda: change(paths[0], newer))
    with pytest.raises(GranuleChangedError, match=f"{paths[0].name} changed while it was read"):
        product.read_daily(granules, DAY, 1, ROWS, COLUMNS, threads=threads, min_fraction=0.1)
    again = product.read_daily(granules, DAY, 1, ROWS, COLUMNS, min_fraction=0.1)
    np.testing.assert_allclose(again.values[0, 1], 0.8, rtol=1e-6)


def test_a_remote_granule_that_changes_while_it_is_read(tmp_path, monkeypatch):
    from deepprofile.products import smap_l4

    memory = fsspec.filesystem("memory")
    content = write_day(tmp_path, hours=(1,))[0]
    url = f"/reading/{content.name}"
    memory.pipe(url, content.read_bytes())
    product = SmapL4(fields=TWO)
    try:
        granules, _ = product.granules("memory://reading", DAY, DAY + timedelta(days=1))
        changes_after(
            monkeypatch, smap_l4, "_read_variable", lambda: memory.pipe(url, content.read_bytes())
        )
        with pytest.raises(GranuleChangedError):
            product.read_daily(granules, DAY, 1, ROWS, COLUMNS)
        assert product.read_daily(granules, DAY, 1, ROWS, COLUMNS).n_steps.max() == 1
    finally:
        memory.rm("/reading", recursive=True)


def test_damage_from_a_change_is_no_damaged_granule(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"half of it")
    with pytest.raises(GranuleChangedError) as caught, unchanged(str(path)):
        path.write_bytes(b"half of it and more")
        raise ValueError("damaged")
    assert "10 bytes" in str(caught.value) and "19 bytes" in str(caught.value)
    with pytest.raises(ValueError, match="damaged"), unchanged(str(path)):
        raise ValueError("damaged")


def test_a_netcdf_granule_that_changes_while_it_is_read(tmp_path, monkeypatch):
    values = np.full((12, 16), 0.3)
    path = write_gldas(tmp_path, values, 0)
    product = Gldas()
    granules, _ = product.granules(str(tmp_path), DAY, DAY + timedelta(days=1))
    changes_after(monkeypatch, Gldas, "load", lambda: replaced(path, path.read_bytes()))
    top, left = (int(i) for i in grid.cell_index(-5.9, 37.0))
    with pytest.raises(GranuleChangedError):
        product.read_daily(granules, DAY, 1, slice(top, top + 4), slice(left, left + 4))


# --- netCDF -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 5, 24, 700])
@pytest.mark.parametrize("step_mib", [1, 10, 300])
def test_pieces_cover_all_steps_and_cut_no_chunk(chunk, step_mib):
    steps = np.arange(3, 690)
    pieces = list(_pieces(steps, step_mib * 2**20, chunk))
    covered = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
    np.testing.assert_array_equal(covered, steps)
    if chunk * step_mib <= 1024:
        assert all(piece.start % chunk == 0 for piece in pieces[1:])


def test_headers_are_read_once_for_each_version_of_a_file(tmp_path, monkeypatch):
    import xarray as xr

    def write(name, first):
        times = np.datetime64(first, "ns") + np.arange(24) * np.timedelta64(1, "h")
        xr.Dataset(
            {"swvl1": (("time", "latitude", "longitude"), np.full((24, 3, 3), 0.3))},
            {"time": times, "latitude": [1.0, 0.9, 0.8], "longitude": [0.0, 0.1, 0.2]},
        ).to_netcdf(tmp_path / name)

    opened = []
    original = era5.open_netcdf
    monkeypatch.setattr(
        era5, "open_netcdf", lambda url, **o: opened.append(url) or original(url, **o)
    )
    write("a.nc", "2020-01-01")
    write("b.nc", "2020-01-02")
    days = date(2020, 1, 1), date(2020, 2, 1)
    assert len(Era5Land().granules(str(tmp_path), *days)[0]) == 2
    assert len(Era5Land().granules(str(tmp_path), *days)[0]) == 2
    assert len(opened) == 2
    write("new.nc", "2020-01-05")
    (tmp_path / "new.nc").replace(tmp_path / "b.nc")
    found, _ = Era5Land().granules(str(tmp_path), *days)
    assert found[1].start == np.datetime64("2020-01-05")
    assert len(opened) == 3


def test_a_large_classic_file_is_copied_from_a_store_and_not_read_into_memory(tmp_path):
    values = np.random.default_rng(0).random((60, 250, 250))
    xr.Dataset({"v": (("time", "y", "x"), values)}).to_netcdf(
        tmp_path / "a.nc", format="NETCDF3_64BIT"
    )
    memory = fsspec.filesystem("memory")
    memory.pipe("/classic/a.nc", (tmp_path / "a.nc").read_bytes())
    try:
        tracemalloc.start()
        with open_netcdf("memory://classic/a.nc") as dataset:
            assert dataset.sizes["time"] == 60
            peak = tracemalloc.get_traced_memory()[1]
            np.testing.assert_array_equal(dataset["v"][7], values[7])
    finally:
        tracemalloc.stop()
        memory.rm("/classic", recursive=True)
    assert peak < values.nbytes / 3
