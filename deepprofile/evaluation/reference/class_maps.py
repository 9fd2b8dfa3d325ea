"""Static classes of cells from maps: land cover, climate and soil texture.

A map is a raster of class codes in geographic coordinates, of any resolution. The class of a 9 km
cell is the one of most of the pixels whose centre lies in it.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile import grid, places
from deepprofile.evaluation.stations.texture import usda_texture

IGBP = MappingProxyType(
    {
        1: "Evergreen needleleaf forest",
        2: "Evergreen broadleaf forest",
        3: "Deciduous needleleaf forest",
        4: "Deciduous broadleaf forest",
        5: "Mixed forest",
        6: "Closed shrubland",
        7: "Open shrubland",
        8: "Woody savanna",
        9: "Savanna",
        10: "Grassland",
        11: "Permanent wetland",
        12: "Cropland",
        13: "Urban and built-up",
        14: "Cropland and natural vegetation",
        15: "Permanent snow and ice",
        16: "Barren",
    }
)
"""Land cover of MCD12C1, band Majority_Land_Cover_Type_1 (collection 6.1 user guide, table 8)."""
_CLIMATES = (
    *("Af", "Am", "Aw", "BWh", "BWk", "BSh", "BSk", "Csa", "Csb", "Csc", "Cwa", "Cwb", "Cwc"),
    *("Cfa", "Cfb", "Cfc", "Dsa", "Dsb", "Dsc", "Dsd", "Dwa", "Dwb", "Dwc", "Dwd"),
    *("Dfa", "Dfb", "Dfc", "Dfd", "ET", "EF"),
)
KOPPEN_GEIGER = MappingProxyType(dict(enumerate(_CLIMATES, start=1)))
"""Climate in the maps of Beck et al. (2023), doi:10.1038/s41597-023-02549-6, and those of 2018."""
LEGENDS = MappingProxyType({"igbp": IGBP, "koppen_geiger": KOPPEN_GEIGER})
HWSD = "hwsd"
"""Legend of the Harmonized World Soil Database 2: codes are soil mapping units of a table."""
_HWSD_COLUMNS = ("HWSD2_SMU_ID", "LAYER", "SEQUENCE", "SAND", "CLAY")
Rows = NDArray[np.int64]


class ClassMapError(ValueError):
    """A map of classes that can't be used; the message says what to do."""


def map_classes(
    url: str | Path, legend: str, row: Rows, column: Rows, *, table: str | Path | None = None
) -> NDArray[np.object_]:
    """Names of the classes of cells.

    Args:
        url: raster of codes in geographic coordinates that GDAL reads, such as GeoTIFF; a path or,
            of a file without side files, a URL.
        legend: a key of :data:`LEGENDS`, or ``"hwsd"``.
        row: rows of the cells, shape (cells,).
        column: columns of the cells, shape (cells,).
        table: for ``"hwsd"``, the table HWSD2_LAYERS as CSV.

    Returns:
        Shape (cells,); an empty text where the map has no class of the legend.

    Raises:
        FileNotFoundError: if the map or the table is not there.
        ClassMapError: if it is no raster in geographic coordinates, none of its codes is in the
            legend, or the legend is unknown.
        ModuleNotFoundError: if rasterio is not installed.
    """
    names = _names(legend, table)
    codes = majority_codes(url, row, column)
    found = np.array([names.get(code, "") for code in codes.tolist()], dtype=object)
    if len(found) and not (found != "").any():
        some = ", ".join(map(str, sorted(set(codes.tolist()))[:5]))
        raise ClassMapError(
            f"{url}: no cell has a code of the legend {legend!r}; found {some} (-1: no data). Is "
            "it the right map and band?"
        )
    return found


def majority_codes(url: str | Path, row: Rows, column: Rows) -> NDArray[np.int64]:
    """Most frequent code of the pixels whose centre lies in each cell.

    Of equally frequent codes the smallest; where a pixel is larger than a cell, the code of the
    pixel that holds the cell's centre; -1 where the raster has no data.
    """
    rasterio = _rasterio()
    longitude, latitude = grid.longitude_edges(), grid.latitude_edges()
    boxes = zip(
        longitude[column], latitude[row + 1], longitude[column + 1], latitude[row], strict=True
    )
    with places.local_copy(url) as path:
        if not path.exists():
            raise FileNotFoundError(f"{url}: there is no map of classes")
        try:
            file = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            raise ClassMapError(f"{url}: can't be read as a raster: {error}") from None
        with file:
            _check(file, url)
            return np.array([_majority(file, *box) for box in boxes], dtype=np.int64)


def _rasterio() -> Any:
    try:
        import rasterio
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "maps of classes are read by the library rasterio, which is not installed. Install it "
            'with pip install "deepprofile[export]"'
        ) from None
    return rasterio


def _check(file: Any, url: str | Path) -> None:
    transform = file.transform
    west, east = file.bounds.left, file.bounds.right
    upright = not transform.b and not transform.d and transform.e < 0
    geographic = file.crs is None or file.crs.is_geographic
    if not (geographic and upright and -180.01 <= west < east <= 180.01):
        raise ClassMapError(
            f"{url}: expected a raster in degrees with north at the top, from -180 to 180; found "
            f"{file.crs or 'no coordinate system'} from {west:g} to {east:g}. Bring it there with "
            "gdalwarp -t_srs EPSG:4326 -r near"
        )


def _majority(file: Any, west: float, south: float, east: float, north: float) -> int:
    """Most frequent valid code of the pixels with their centre in a box; -1 for none."""
    transform = file.transform
    columns = _pixels(west, east, transform.c, transform.a, file.width)
    rows = _pixels(north, south, transform.f, transform.e, file.height)
    if not columns or not rows:
        return -1
    codes = file.read(1, window=((rows.start, rows.stop), (columns.start, columns.stop)))
    valid = codes[codes != file.nodata] if file.nodata is not None else codes.ravel()
    if not valid.size:
        return -1
    found, count = np.unique(valid, return_counts=True)
    return int(found[np.argmax(count)])


def _pixels(first: float, last: float, origin: float, size: float, number: int) -> range:
    """Pixels with their centre between two edges; the one at the middle where there is none."""
    start = int(np.ceil((first - origin) / size - 0.5))
    stop = int(np.ceil((last - origin) / size - 0.5))
    if stop <= start:
        start = int(np.floor(((first + last) / 2 - origin) / size))
        stop = start + 1
    return range(max(start, 0), min(stop, number))


def _names(legend: str, table: str | Path | None) -> dict[int, str]:
    if legend == HWSD:
        if table is None:
            raise ClassMapError(
                "the legend hwsd needs the table HWSD2_LAYERS as CSV, of which the raster's codes "
                "are soil mapping units: name it as table"
            )
        return _soil_units(table)
    if legend not in LEGENDS:
        known = ", ".join([*LEGENDS, HWSD])
        raise ClassMapError(f"legend {legend!r} is unknown: expected one of {known}")
    return dict(LEGENDS[legend])


def _soil_units(table: str | Path) -> dict[int, str]:
    """USDA texture of the topsoil (layer D1) of the dominant soil of each mapping unit."""
    with places.local_copy(table) as path:
        try:
            layers = pd.read_csv(path, usecols=list(_HWSD_COLUMNS))
        except ValueError as error:
            raise ClassMapError(
                f"{table}: is not the table HWSD2_LAYERS: {error}. Expected a CSV file with the "
                f"columns {', '.join(_HWSD_COLUMNS)}"
            ) from None
    top = layers[layers["LAYER"] == "D1"].sort_values("SEQUENCE", kind="stable")
    dominant = top.drop_duplicates("HWSD2_SMU_ID")
    numbers = dominant[["CLAY", "SAND"]].apply(pd.to_numeric, errors="coerce")
    names = usda_texture(numbers["CLAY"].to_numpy(), numbers["SAND"].to_numpy())
    return dict(zip(dominant["HWSD2_SMU_ID"].tolist(), names.tolist(), strict=True))
