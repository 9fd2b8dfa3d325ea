"""The coarse fields of a collocation against a plain loop, and the figure that shows them."""

import numpy as np
import pytest
import xarray as xr

from deepprofile import grid
from deepprofile.collocation import Flag, flag_attributes
from deepprofile.evaluation.figures.collocation_maps import collocation_maps
from deepprofile.evaluation.figures.style import image
from deepprofile.stages.collocate_summary import _coarse

PRODUCTS = ("smap_l4", "era5_land", "gldas")
MEANINGS = flag_attributes(PRODUCTS)["flag_meanings"].split()


def band(rows=8, columns=16, seed=0):
    """A part of a cube: sea, land with all flags, a corner without a valid cell."""
    generator = np.random.default_rng(seed)
    flag = generator.choice([255, *map(int, Flag)], (rows, columns), p=[0.2, 0.5] + [0.06] * 5)
    flag[:4, :4] = generator.choice([255, 1, 4], (4, 4))
    flag[:4, 4:8] = 255
    weight = generator.random((3, rows, columns), np.float32)
    weight[:, flag == 255] = np.nan
    variance = generator.normal(4e-4, 3e-4, (3, rows, columns)).astype(np.float32)
    variance = np.where(flag == Flag.VALID, np.abs(variance), variance)
    variance[:, flag == 1] = np.nan
    dims = ("product", "y", "x")
    return xr.Dataset(
        {
            "weight": (dims, weight),
            "error_variance": (dims, variance),
            "flag": (("y", "x"), flag.astype(np.uint8)),
        },
        {
            "product": list(PRODUCTS),
            "y": grid.y_centers()[400 : 400 + rows],
            "x": grid.x_centers()[1000 : 1000 + columns],
        },
    )


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_coarse_fields_equal_a_plain_loop(factor):
    fine = band()
    coarse = _coarse(fine, factor)
    assert dict(coarse.sizes) == {"product": 3, "y": 8 // factor, "x": 16 // factor}
    for row in range(8 // factor):
        for column in range(16 // factor):
            square = fine.isel(
                y=slice(row * factor, (row + 1) * factor),
                x=slice(column * factor, (column + 1) * factor),
            )
            found = coarse.isel(y=row, x=column)
            assert found["y"] == square["y"].mean()
            assert found["x"] == square["x"].mean()
            flag = square["flag"].values
            valid, land = flag == Flag.VALID, flag != 255
            for name, source in (("weight", "weight"), ("error", "error_variance")):
                values = square[source].values[:, valid]
                expected = values.mean(axis=1, dtype=np.float64) if valid.any() else np.nan
                expected = np.sqrt(expected) if name == "error" else expected
                np.testing.assert_allclose(found[name].values, expected, rtol=1e-6)
            expected = (land & ~valid).sum() / land.sum() if land.any() else np.nan
            np.testing.assert_allclose(found["invalid"], expected)
            reasons = np.bincount(flag[land & ~valid], minlength=6)[:6]
            if not land.any():
                assert found["reason"] == 255
            elif not reasons.any():
                assert found["reason"] == Flag.VALID
            else:
                assert reasons[int(found["reason"])] == reasons.max()


def drawn(fine, factor, invalid):
    fields = _coarse(fine, factor).assign_attrs(factor=factor)
    medians = {"weight": [0.4, 0.35, 0.25], "error": [0.02, 0.03, np.nan]}
    return collocation_maps(fields, MEANINGS, invalid, medians)


def test_the_figure_says_medians_shares_and_reasons():
    figure = drawn(band(), 2, {"too_few_days": 0.03, "negative_error_variance_of_gldas": 0.1})
    titles = [axes.get_title("left") for axes in figure.axes]
    assert "Weight of ERA5-Land: median 0.350" in titles
    assert "Error of GLDAS: median nan" in titles
    assert "Not valid: 13.0 %" in titles
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == [
        "valid: 87.0 %",
        "too few days: 3.0 %",
        "negative error variance of GLDAS: 10.0 %",
    ]


def test_a_region_without_any_valid_cell_is_drawn_and_one_without_land_refused():
    fine = band()
    fine["flag"] = xr.where(fine["flag"] == Flag.VALID, np.uint8(1), fine["flag"])
    assert image(drawn(fine, 1, {"too_few_days": 1.0}), "png", dpi=40)
    with pytest.raises(ValueError, match="no cell with a value"):
        drawn(fine.assign(flag=xr.full_like(fine["flag"], 255)), 1, {})
