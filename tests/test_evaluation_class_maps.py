"""Classes of cells from maps, against a plain loop over every pixel."""

import numpy as np
import pandas as pd
import pytest

from deepprofile import grid
from deepprofile.evaluation.reference.class_maps import (
    IGBP,
    KOPPEN_GEIGER,
    ClassMapError,
    majority_codes,
    map_classes,
)

rasterio = pytest.importorskip("rasterio")
WEST, NORTH, SIZE = -99.0, 31.0, 0.02


def raster(path, codes, *, size=SIZE, west=WEST, north=NORTH, crs="EPSG:4326", **options):
    height, width = codes.shape
    transform = rasterio.Affine(size, 0, west, 0, -size, north)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=codes.dtype,
        crs=crs, transform=transform, **options,
    ) as file:  # fmt: skip
        file.write(codes, 1)
    return path


def cells():
    """Cells that lie inside the raster of 100 by 100 pixels."""
    longitude, latitude = np.meshgrid(np.linspace(-98.8, -97.2, 9), np.linspace(29.2, 30.8, 9))
    row, column = grid.cell_index(longitude.ravel(), latitude.ravel())
    places = np.unique(np.stack([row, column], 1), axis=0)
    return places[:, 0], places[:, 1]


def test_the_class_of_a_cell_is_that_of_most_pixel_centres_in_it(tmp_path):
    codes = np.random.default_rng(0).integers(0, 4, (100, 100)).astype("u1")
    path = raster(tmp_path / "map.tif", codes, nodata=0)
    row, column = cells()
    y, x = np.mgrid[:100, :100]
    own_row, own_column = grid.cell_index(WEST + (x + 0.5) * SIZE, NORTH - (y + 0.5) * SIZE)
    expected = []
    for r, c in zip(row, column, strict=True):
        inside = codes[(own_row == r) & (own_column == c)]
        counts = np.bincount(inside, minlength=4)
        counts[0] = 0
        expected.append(int(np.argmax(counts)))
    assert len(set(expected)) == 3
    np.testing.assert_array_equal(majority_codes(path, row, column), expected)
    names = map_classes(path, "igbp", row, column)
    np.testing.assert_array_equal(names, [IGBP[code] for code in expected])


def test_a_coarse_map_gives_the_pixel_that_holds_the_centre(tmp_path):
    codes = np.arange(1, 17, dtype="u1").reshape(4, 4)
    path = raster(tmp_path / "coarse.tif", codes, size=0.5)
    row, column = cells()
    longitude, latitude = grid.longitudes()[column], grid.latitudes()[row]
    inside = codes[((NORTH - latitude) / 0.5).astype(int), ((longitude - WEST) / 0.5).astype(int)]
    found = majority_codes(path, row, column)
    # Where an edge of pixels runs through a cell both codes are right as far as centres go.
    assert (found == inside).mean() > 0.9


def test_cells_beyond_the_map_or_without_data_have_no_class(tmp_path):
    codes = np.full((100, 100), 26, "u1")
    codes[:, 50:] = 0
    path = raster(tmp_path / "map.tif", codes, nodata=0)
    row, column = grid.cell_index([-98.5, -97.2, 20.0], [30.0, 30.0, 30.0])
    np.testing.assert_array_equal(majority_codes(path, row, column), [26, -1, -1])
    names = map_classes(path, "koppen_geiger", row, column)
    assert names.tolist() == ["Dfb", "", ""] and KOPPEN_GEIGER[30] == "EF"


def test_soil_units_have_the_texture_of_their_dominant_topsoil(tmp_path):
    table = pd.DataFrame(
        {
            "ID": range(5),
            "HWSD2_SMU_ID": [7001, 7001, 7001, 7002, 7003],
            "LAYER": ["D1", "D1", "D2", "D1", "D1"],
            "SEQUENCE": [2, 1, 1, 1, 1],
            "SAND": [10, 65, 10, 90, None],
            "CLAY": [60, 10, 60, 4, None],
        }
    )
    table.to_csv(tmp_path / "layers.csv", index=False)
    codes = np.full((100, 100), 7001, "u2")
    codes[:, 40:70], codes[:, 70:] = 7002, 7003
    path = raster(tmp_path / "hwsd.tif", codes)
    row, column = grid.cell_index([-98.6, -97.9, -97.3], [30.0, 30.0, 30.0])
    names = map_classes(path, "hwsd", row, column, table=tmp_path / "layers.csv")
    assert names.tolist() == ["sandy loam", "sand", ""]


@pytest.mark.parametrize(
    ("legend", "options", "expected"),
    [
        ("igbp", {"crs": "EPSG:6933"}, "gdalwarp"),
        ("igbp", {"west": 350.0}, "gdalwarp"),
        ("koppen", {}, "legend 'koppen' is unknown: expected one of igbp, koppen_geiger, hwsd"),
        ("hwsd", {}, "needs the table HWSD2_LAYERS"),
        ("igbp", {}, "no cell has a code of the legend 'igbp'; found 200"),
    ],
)
def test_a_map_that_can_not_be_used_is_named(tmp_path, legend, options, expected):
    path = raster(tmp_path / "map.tif", np.full((100, 100), 200, "u1"), **options)
    row, column = cells()
    with pytest.raises(ClassMapError, match=expected):
        map_classes(path, legend, row, column)


def test_a_missing_map_and_another_file_are_named(tmp_path):
    row, column = cells()
    with pytest.raises(FileNotFoundError, match="no map of classes"):
        map_classes(tmp_path / "none.tif", "igbp", row, column)
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(ClassMapError, match="can't be read as a raster"):
        map_classes(tmp_path / "text.tif", "igbp", row, column)
