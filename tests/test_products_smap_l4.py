from datetime import date, timedelta

import fsspec
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.products import (
    PRODUCTS,
    Field,
    Granule,
    MissingVariableError,
    SmapL4,
)
from deepprofile.products.smap_l4 import FORCING, SOIL_MOISTURE

ROWS, COLUMNS = slice(500, 506), slice(900, 907)
DAY = date(2020, 1, 1)
HOURS = tuple(range(1, 24, 3))
TWO = (FORCING[0], SOIL_MOISTURE[0])


def granule_name(day: date, hour: int, version: str = "Vv7030_001") -> str:
    return f"SMAP_L4_SM_gph_{day:%Y%m%d}T{hour:02d}3000_{version}.h5"


def middle(field: Field) -> float:
    return (field.valid_min + field.valid_max) / 2


def write_granule(path, values=None, fields=TWO, rows=ROWS, columns=COLUMNS, units=None):
    """A subset granule; ``values`` maps names to arrays, other fields get a constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    with h5py.File(path, "w") as file:
        index = np.mgrid[rows, columns].astype("u4")
        file["cell_row"], file["cell_column"] = index
        file["x"], file["y"] = grid.x_centers()[columns], grid.y_centers()[rows]
        for field in fields:
            data = (values or {}).get(field.name, np.full(shape, middle(field)))
            variable = file.create_dataset(
                f"Geophysical_Data/{field.source}", data=data, dtype="f4", compression="gzip"
            )
            variable.attrs["_FillValue"] = np.float32(-9999)
            variable.attrs["units"] = np.bytes_((units or {}).get(field.name, field.units))
    return path


def write_day(folder, day=DAY, hours=HOURS, **options):
    return [write_granule(folder / granule_name(day, hour), **options) for hour in hours]


def read(folder, n_days=1, fields=TWO, rows=ROWS, columns=COLUMNS, **options):
    product = SmapL4(fields=fields)
    granules, aside = product.granules(str(folder), DAY, DAY + timedelta(days=n_days))
    daily = product.read_daily(granules, DAY, n_days, rows, columns, **options)
    return daily, aside


def reasons(daily):
    return {item.url.rsplit("/", 1)[-1]: item.reason for item in daily.set_aside}


def test_the_table_of_variables():
    assert (len(FORCING), len(SOIL_MOISTURE)) == (39, 2)
    assert PRODUCTS["smap_l4"].fields == FORCING + SOIL_MOISTURE
    assert [(layer.top, layer.bottom) for layer in PRODUCTS["smap_l4"].layers] == [
        (0.0, 0.05),
        (0.0, 1.0),
    ]
    assert "mwrtm_vegopacity" in {f.name for f in FORCING}
    assert all(f.valid_min < f.valid_max for f in FORCING)


def test_a_full_day_of_all_variables(tmp_path):
    write_day(tmp_path, fields=FORCING + SOIL_MOISTURE)
    daily, aside = read(tmp_path, fields=FORCING + SOIL_MOISTURE)
    assert daily.values.shape == (1, 41, 6, 7)
    assert (daily.values.dtype, daily.n_steps.dtype) == (np.float32, np.uint8)
    expected = [middle(f) for f in FORCING + SOIL_MOISTURE]
    np.testing.assert_allclose(daily.values[0, :, 2, 3], expected, rtol=1e-6)
    assert (daily.n_steps == 8).all()
    assert aside == daily.set_aside == daily.short_days == []
    assert set(daily.out_of_range.values()) == {0}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 8), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_daily_means_equal_a_plain_loop(tmp_path_factory, seed, n_granules, min_fraction):
    folder = tmp_path_factory.mktemp("smap")
    rng = np.random.default_rng(seed)
    stack = rng.uniform(0.0, 0.9, (n_granules, 2, 6, 7)).astype("f4")
    stack[:, 0] = 40000 + stack[:, 0] * 70000
    stack[rng.random(stack.shape) < 0.3] = -9999
    for hour, (pressure, moisture) in zip(HOURS, stack, strict=False):
        values = {"surface_pressure": pressure, "sm_surface": moisture}
        write_granule(folder / granule_name(DAY, hour), values)
    daily, _ = read(folder, min_fraction=min_fraction)
    for f, r, c in np.ndindex(2, 6, 7):
        series = stack[:, f, r, c]
        series = series[series != -9999].astype("f8")
        expected = series.mean() if series.size >= min_fraction * 8 else np.nan
        np.testing.assert_allclose(daily.values[0, f, r, c], expected, rtol=1e-6)
    np.testing.assert_array_equal(daily.n_steps[0], (stack != -9999).all(axis=1).sum(axis=0))
    assert daily.short_days == ([(DAY, n_granules)] if n_granules < min_fraction * 8 else [])


def test_the_window_may_be_larger_or_smaller_than_the_subset(tmp_path):
    moisture = np.arange(42.0).reshape(6, 7) / 100
    write_day(tmp_path, values={"sm_surface": moisture})
    small, _ = read(tmp_path, rows=slice(502, 504), columns=slice(901, 905))
    np.testing.assert_allclose(small.values[0, 1], moisture[2:4, 1:5], rtol=1e-6)
    large, _ = read(tmp_path, rows=slice(498, 510), columns=slice(903, 920))
    np.testing.assert_allclose(large.values[0, 1, 2:8, :4], moisture[:, 3:], rtol=1e-6)
    assert np.isfinite(large.values[0, 1]).sum() == 24
    assert (large.n_steps > 0).sum() == 24


def test_a_window_beside_the_subset_is_missing_with_a_reason(tmp_path):
    write_day(tmp_path)
    daily, _ = read(tmp_path, rows=slice(0, 5))
    assert np.isnan(daily.values).all()
    assert len(daily.set_aside) == 8
    assert "500 to 505" in daily.set_aside[0].reason


def test_a_day_is_built_from_what_remains_or_is_missing(tmp_path):
    write_day(tmp_path, hours=HOURS[:6])
    write_day(tmp_path, day=DAY + timedelta(days=1), hours=HOURS[:5])
    daily, _ = read(tmp_path, n_days=3)
    assert np.isfinite(daily.values[0]).all()
    assert np.isnan(daily.values[1:]).all()
    assert daily.n_steps[:, 0, 0].tolist() == [6, 5, 0]
    assert daily.short_days == [(DAY + timedelta(days=1), 5), (DAY + timedelta(days=2), 0)]


def test_values_out_of_range_are_missing_and_counted(tmp_path):
    moisture = np.full((6, 7), 0.3)
    moisture[0, 0], moisture[1, 1], moisture[2, 2], moisture[3, 3] = 0.95, -0.1, np.inf, -9999
    moisture[4, 4] = 0.9
    write_day(tmp_path, values={"sm_surface": moisture})
    daily, _ = read(tmp_path)
    assert daily.out_of_range == {"surface_pressure": 0, "sm_surface": 3 * 8}
    missing = np.argwhere(np.isnan(daily.values[0, 1])).tolist()
    assert missing == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert np.isfinite(daily.values[0, 0]).all()
    assert daily.n_steps[0, 0, 0] == 0


def test_damaged_granules_are_set_aside_by_name(tmp_path):
    paths = write_day(tmp_path)
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    daily, _ = read(tmp_path)
    assert (daily.n_steps == 6).all()
    assert np.isfinite(daily.values).all()
    assert set(reasons(daily)) == {paths[0].name, paths[1].name}
    assert all("damaged or not complete" in reason for reason in reasons(daily).values())


def test_damage_inside_the_data_is_noticed(tmp_path):
    paths = write_day(tmp_path)
    with h5py.File(paths[3]) as file:
        offset = file["Geophysical_Data/sm_surface"].id.get_chunk_info(0).byte_offset
    content = bytearray(paths[3].read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    paths[3].write_bytes(content)
    daily, _ = read(tmp_path)
    assert set(reasons(daily)) == {paths[3].name}
    assert (daily.n_steps == 7).all()


def other_grid(file):
    file["x"][...] = file["x"][...] + 4000.0


def degrees(file):
    file["x"][...] = np.linspace(0, 1, 7)


def shifted_index(file):
    file["cell_row"][...] = file["cell_row"][...] + 1


def no_coordinate(file):
    del file["y"]


def other_units(file):
    file["Geophysical_Data/sm_surface"].attrs["units"] = "kg m-2"


def no_units(file):
    del file["Geophysical_Data/sm_surface"].attrs["units"]


def no_variable(file):
    del file["Geophysical_Data/sm_surface"]


def no_group(file):
    del file["Geophysical_Data"]


def other_shape(file):
    del file["Geophysical_Data/sm_surface"]
    file["Geophysical_Data/sm_surface"] = np.zeros((3, 3), "f4")
    file["Geophysical_Data/sm_surface"].attrs["units"] = "m3 m-3"


@pytest.mark.parametrize(
    "fault, reason",
    [
        (other_grid, "another grid"),
        (degrees, "another grid"),
        (shifted_index, "cell_row runs from 501 to 506"),
        (no_coordinate, "no coordinate y"),
        (other_units, "sm_surface is in 'kg m-2'; expected 'm3 m-3'"),
        (no_units, "sm_surface has no units; expected 'm3 m-3'"),
        (no_variable, "no variable /Geophysical_Data/sm_surface"),
        (no_group, "no group Geophysical_Data"),
        (other_shape, "shape \\(3, 3\\)"),
    ],
)
@pytest.mark.parametrize("position", [0, 5])
def test_a_deviating_granule_is_set_aside_wherever_it_stands(tmp_path, fault, reason, position):
    paths = write_day(tmp_path)
    with h5py.File(paths[position], "r+") as file:
        fault(file)
    daily, _ = read(tmp_path)
    assert list(reasons(daily)) == [paths[position].name]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(daily.set_aside[0].reason)
    assert (daily.n_steps == 7).all()
    np.testing.assert_allclose(daily.values[0, 1], middle(SOIL_MOISTURE[0]), rtol=1e-6)


def test_a_variable_that_all_granules_lack_is_an_error(tmp_path):
    write_day(tmp_path, fields=TWO[:1])
    with pytest.raises(MissingVariableError, match=r"\.h5: there is no variable .*sm_surface"):
        read(tmp_path)


@pytest.mark.parametrize("units", [b"dimensionless", "1"])
def test_units_may_be_written_either_way(tmp_path, units):
    wetness = next(f for f in FORCING if f.name == "sm_surface_wetness")
    for path in write_day(tmp_path, fields=(wetness,)):
        with h5py.File(path, "r+") as file:
            file["Geophysical_Data/sm_surface_wetness"].attrs["units"] = units
    daily, _ = read(tmp_path, fields=(wetness,))
    assert (daily.n_steps == 8).all()


def test_the_newest_version_of_a_granule_is_kept(tmp_path):
    write_day(tmp_path / "2020.01.01")
    newer = {"sm_surface": np.full((6, 7), 0.8)}
    for version in ("Vv7029_009", "Vv7031_001", "Vv7030_002"):
        write_granule(tmp_path / "again" / granule_name(DAY, 4, version), newer)
    granules, aside = SmapL4().granules(str(tmp_path), DAY, DAY + timedelta(days=1))
    assert len(granules) == 8
    assert [g.version for g in granules][1] == "Vv7031_001"
    assert len(aside) == 3
    assert all("Vv7031_001" in item.reason and "duplicate" in item.reason for item in aside)
    assert [g.start for g in granules] == sorted(g.start for g in granules)


def test_granules_outside_the_days_are_left_out(tmp_path):
    for offset in range(3):
        write_day(tmp_path, day=DAY + timedelta(days=offset), hours=HOURS[:1])
    granules, _ = SmapL4().granules(str(tmp_path), DAY + timedelta(days=1), DAY + timedelta(days=2))
    assert [g.start for g in granules] == [np.datetime64("2020-01-02T01:30:00")]


def test_an_impossible_time_in_a_name_is_set_aside(tmp_path):
    write_day(tmp_path)
    (tmp_path / "SMAP_L4_SM_gph_20201332T013000_Vv7030_001.h5").write_bytes(b"")
    granules, aside = SmapL4().granules(str(tmp_path), DAY, DAY + timedelta(days=1))
    assert len(granules) == 8
    assert "impossible" in aside[0].reason


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_folder_without_granules_is_named_with_what_is_there(tmp_path, name):
    folder = tmp_path / "somewhere"
    with pytest.raises(FileNotFoundError, match=r"somewhere.*no files at all"):
        PRODUCTS[name].granules(str(folder), DAY, DAY + timedelta(days=1))
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match=r"somewhere.*1 other files, such as notes\.txt"):
        PRODUCTS[name].granules(str(folder), DAY, DAY + timedelta(days=1))


def test_any_fsspec_url_gives_the_same(tmp_path):
    memory = fsspec.filesystem("memory")
    paths = write_day(tmp_path, values={"sm_surface": np.arange(42.0).reshape(6, 7) / 100})
    for path in paths:
        memory.pipe(f"/smap-test/2020/{path.name}", path.read_bytes())
    try:
        remote, _ = read("memory://smap-test")
        memory.pipe(f"/smap-test/2020/{paths[0].name}", b"not HDF5")
        damaged, _ = read("memory://smap-test")
    finally:
        memory.rm("/smap-test", recursive=True)
    np.testing.assert_array_equal(remote.values, read(tmp_path)[0].values)
    assert (damaged.n_steps == 7).all()
    assert reasons(damaged) and "damaged" in damaged.set_aside[0].reason


def test_a_file_that_has_gone_is_no_bad_granule(tmp_path):
    paths = write_day(tmp_path)
    product = SmapL4(fields=TWO)
    granules, _ = product.granules(str(tmp_path), DAY, DAY + timedelta(days=1))
    paths[0].unlink()
    with pytest.raises(FileNotFoundError):
        product.read_daily(granules, DAY, 1, ROWS, COLUMNS)


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_share_of_steps_that_makes_no_sense_is_refused(tmp_path, fraction):
    write_day(tmp_path, hours=HOURS[:1])
    with pytest.raises(ValueError, match="min_fraction"):
        read(tmp_path, min_fraction=fraction)


def real_product():
    fields = (
        Field("sm_surface", "m3 m-3", 0.0, 0.9, "sm_surface_analysis"),
        Field("surface_temp", "K", 180.0, 350.0, "surface_temp_analysis"),
    )
    return SmapL4(fields=fields, group="Analysis_Data")


def test_the_real_analysis_file_reads_with_the_same_code(real_data):
    path = real_data("smap_l4/SMAP_L4_SM_aup_input.h5")
    time = np.datetime64("2020-01-28T15:00:00")
    daily = real_product().read_daily(
        [Granule(str(path), time, time)],
        date(2020, 1, 28),
        1,
        slice(0, 400),
        slice(100, 600),
        min_fraction=1 / 8,
    )
    with h5py.File(path) as file:
        top = round((grid.Y_NORTH - file["y"][0]) / grid.CELL_SIZE - 0.5)
        left = int(file["cell_column"][0, 0])
        for name, found in zip(
            ("sm_surface_analysis", "surface_temp_analysis"), daily.values[0], strict=True
        ):
            raw = file[f"Analysis_Data/{name}"][: 400 - top, 100 - left : 600 - left]
            expected = np.where(raw == -9999, np.nan, raw)
            np.testing.assert_array_equal(found[top:], expected)
    assert daily.set_aside == []
    assert 0 < (daily.n_steps == 1).sum() < daily.n_steps.size
    assert daily.out_of_range == {"sm_surface": 0, "surface_temp": 0}


def test_the_real_file_in_degrees_is_another_grid(real_data):
    path = str(real_data("smap_l4/SMAP_L4_SM_aup_dimension_list_input.h5"))
    time = np.datetime64("2020-01-28T15:00:00")
    daily = real_product().read_daily(
        [Granule(path, time, time)], date(2020, 1, 28), 1, slice(0, 400), slice(100, 600)
    )
    assert daily.set_aside[0].url == path
    assert "another grid" in daily.set_aside[0].reason
    assert daily.short_days == [(date(2020, 1, 28), 0)]
