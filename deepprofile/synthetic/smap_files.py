"""SMAP L4 granules (SPL4SMGP) of the demo Earth in the agency's own layout."""

import csv
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig
from deepprofile.synthetic.domain import Domain
from deepprofile.synthetic.flaws import Flaws
from deepprofile.synthetic.smap import SmapState, months, variables
from deepprofile.synthetic.template import GranuleTemplate

GROUP = "Geophysical_Data"
VERSION, OLD_VERSION = "Vv8010_001", "Vv7032_001"
FILL = np.float32(-9999.0)
J2000 = np.datetime64("2000-01-01T12:00:00", "s")
"""Zero of ``time``. The units say 11:58:55.816 UTC, but the agency's values count from noon."""
_STAMP = "YYYYMMDDTHHMMSS"


def write_smap(
    smap: SmapState,
    domain: Domain,
    config: EarthConfig,
    flaws: Flaws,
    root: Path,
    progress: Callable[[float], None],
) -> int:
    """Write all granules below ``root`` in folders by year and month.

    Args:
        smap: state of the model.
        domain: its cells.
        config: the demo Earth.
        flaws: what goes wrong.
        root: the folder.
        progress: called with the share that is done.

    Returns:
        Number of files.
    """
    table = _table()
    template = GranuleTemplate(lambda file: _build(file, domain, table), (_STAMP,))
    n_files, total = 0, config.n_days * STEPS_PER_DAY
    for step, fields in _granules(smap, domain, flaws, config, list(table)):
        if step not in flaws.smap_missing:
            n_files += _write(template, fields, step, flaws, config, root)
        progress((step + 1) / total)
    return n_files


def granule_path(config: EarthConfig, step: int, version: str = VERSION) -> Path:
    """Path of a granule below the root of the archive."""
    stamp = _stamp(_middle(config, step))
    folder = Path(f"Y{stamp[:4]}") / f"M{stamp[4:6]}"
    return folder / f"SMAP_L4_SM_gph_{stamp}_{version}.h5"


def _granules(
    smap: SmapState, domain: Domain, flaws: Flaws, config: EarthConfig, names: list[str]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Every step and its variables on the window, (variables, rows, columns)."""
    wrong = {step: (names.index(name), value) for step, name, value in flaws.smap_out_of_range}
    for span in months(config):
        fields = variables(smap, span)
        stacked = np.stack([fields[name] for name in names], axis=0)
        stacked = np.where(np.isfinite(stacked), stacked, FILL).astype(np.float32)
        for step in range(span.start, span.stop):
            window = np.full((len(names), *domain.land.shape), FILL)
            window[:, domain.row, domain.column] = stacked[:, :, step - span.start]
            if step in wrong:
                variable, value = wrong[step]
                window[variable, domain.row[-1], domain.column[-1]] = value
            yield step, window


def _write(
    template: GranuleTemplate,
    fields: NDArray[np.float32],
    step: int,
    flaws: Flaws,
    config: EarthConfig,
    root: Path,
) -> int:
    middle = _middle(config, step)
    values: dict[str, NDArray[Any]] = {
        f"{GROUP}/{name}": field for name, field in zip(_table(), fields, strict=True)
    }
    values["time"] = np.array([(middle - J2000) / np.timedelta64(1, "s")])
    image = template.fill(values, {_STAMP: _stamp(middle)})
    if step in flaws.smap_truncated:
        image = image[: len(image) // 3]
    versions = [VERSION, OLD_VERSION] if step in flaws.smap_superseded else [VERSION]
    for version in versions:
        path = root / granule_path(config, step, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    return len(versions)


def _middle(config: EarthConfig, step: int) -> np.datetime64:
    """Middle of a step: 01:30, 04:30, …, 22:30."""
    return np.datetime64(config.start, "s") + np.timedelta64(step * 10800 + 5400, "s")


def _stamp(time: np.datetime64) -> str:
    return str(time).replace("-", "").replace(":", "")


def _table() -> dict[str, tuple[str, float, float]]:
    """Units, lowest and highest valid value of each variable, by name."""
    text = resources.files("deepprofile.products").joinpath("spl4smgp.csv").read_text()
    return {
        line["variable"]: (line["units"], float(line["valid_min"]), float(line["valid_max"]))
        for line in csv.DictReader(text.splitlines())
    }


def _build(file: h5py.File, domain: Domain, table: dict[str, tuple[str, float, float]]) -> None:
    """Lay out a granule: root coordinates, then the group of variables."""
    shape = domain.land.shape
    file.attrs.update(
        {
            "Comment": np.bytes_("HDF-5"),
            "Conventions": np.bytes_("CF"),
            "Filename": np.bytes_(f"SMAP_L4_SM_gph_{_STAMP}_{VERSION}.h5"),
            "History": np.bytes_("Written for the DeepProfile demo Earth"),
            "Institution": np.bytes_("DeepProfile, synthetic data"),
            "Source": np.bytes_("DeepProfile demo Earth"),
            "Title": np.bytes_("SMAP L4_SM Geophysical (GPH) Data Granule"),
        }
    )
    _build_axes(file, domain)
    longitude = np.broadcast_to(grid.longitudes()[domain.columns], shape)
    latitude = np.broadcast_to(grid.latitudes()[domain.rows][:, None], shape)
    column = np.broadcast_to(domain.columns, shape)
    row = np.broadcast_to(domain.rows[:, None], shape)
    for name, values, units, low, high in (
        ("cell_lon", longitude.astype(np.float32), "degrees_east", -180.0, 180.0),
        ("cell_lat", latitude.astype(np.float32), "degrees_north", -90.0, 90.0),
        ("cell_row", row.astype(np.uint32), "dimensionless", 0.0, grid.N_ROWS - 1.0),
        ("cell_column", column.astype(np.uint32), "dimensionless", 0.0, grid.N_COLUMNS - 1.0),
    ):
        fill = np.uint32(4294967294) if values.dtype == np.uint32 else FILL
        _build_field(file, name, values, units, (low, high), fill)
    group = file.create_group(GROUP)
    for name, (units, low, high) in table.items():
        empty = np.full(shape, FILL)
        _build_field(group, name, empty, units, (low, high), FILL)


def _build_axes(file: h5py.File, domain: Domain) -> None:
    for name, values in (
        ("x", grid.x_centers()[domain.columns]),
        ("y", grid.y_centers()[domain.rows]),
    ):
        axis = file.create_dataset(name, data=values)
        axis.attrs["axis"] = np.bytes_(name.upper())
        axis.attrs["long_name"] = np.bytes_(
            f"{name.upper()} coordinate of cell center in EASE 2.0 global projection"
        )
        axis.attrs["standard_name"] = np.bytes_(f"projection_{name}_coordinate")
        axis.attrs["units"] = np.bytes_("m")
        axis.make_scale(name)
    time = file.create_dataset("time", data=np.zeros(1))
    time.attrs["long_name"] = np.bytes_("Time")
    time.attrs["delta_t"] = np.bytes_("0000-00-00 03:00:00")
    time.attrs["units"] = np.bytes_("seconds since 2000-01-01 11:58:55.816")
    projection = file.create_dataset("EASE2_global_projection", data=np.bytes_(" "))
    projection.attrs.update(
        {
            "grid_mapping_name": np.bytes_("lambert_cylindrical_equal_area"),
            "longitude_of_central_meridian": 0.0,
            "standard_parallel": 30.0,
            "false_easting": 0.0,
            "false_northing": 0.0,
            "semi_major_axis": 6378137.0,
            "inverse_flattening": 298.257223563,
        }
    )


def _build_field(
    group: h5py.Group,
    name: str,
    values: NDArray[Any],
    units: str,
    limits: tuple[float, float],
    fill: np.generic,
) -> None:
    field = group.create_dataset(name, data=values)
    field.dims[0].attach_scale(group.file["y"])
    field.dims[1].attach_scale(group.file["x"])
    kind = values.dtype.type
    field.attrs.update(
        {
            "_FillValue": fill,
            "fmissing_value": fill,
            "missing_value": fill,
            "valid_min": kind(limits[0]),
            "valid_max": kind(limits[1]),
            "units": np.bytes_(units),
            "long_name": np.bytes_(name.replace("_", " ")),
            "coordinates": np.bytes_("/cell_lat /cell_lon"),
            "grid_mapping": np.bytes_("EASE2_global_projection"),
        }
    )
