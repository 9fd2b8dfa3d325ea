"""Triple collocation of real series around seven stations on Hawaii, against pytesmo."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pytesmo.metrics import tcol_metrics

import deepprofile as dp
from deepprofile.collocation import Flag

SITES = {
    "Kainaliu": (19.533, -155.929),
    "Kemole Gulch": (19.915, -155.591),
    "Kukuihaele": (20.096, -155.509),
    "Mana House": (19.957, -155.535),
    "Pua Akala": (19.793, -155.332),
    "Silver Sword": (19.765, -155.423),
    "Waimea Plain": (20.010, -155.598),
}
FOLDERS = {
    "gldas": ("GLDAS/GLDAS_NOAH025_3H_2_1", "SoilMoi0_10cm_inst"),
    "era5_land": ("ERA5_LAND/ERA5_LAND_V20190904", "swvl1"),
    "smap_l3": ("SMAP_L3/SMAP_V9_AM_PM/netcdf", "soil_moisture"),
}


def read_places(path, name):
    """Latitude, longitude and series of every location of a file."""
    with xr.open_dataset(path) as file:
        values, time = file[name].values, pd.DatetimeIndex(file["time"].values)
        for index, place in enumerate(zip(file["lat"].values, file["lon"].values, strict=True)):
            if "locationIndex" in file:  # indexed ragged: all locations along one time axis
                own = file["locationIndex"].values == index
                yield place, pd.Series(values[own], time[own])
            else:
                yield place, pd.Series(values[index], time)


def daily_at(places, site):
    """Daily means of the location nearest to a site."""

    def distance(place):
        (latitude, longitude), _ = place
        east = (longitude - site[1]) * np.cos(np.radians(site[0]))
        return np.hypot(latitude - site[0], east)

    return min(places, key=distance)[1].resample("1D").mean()


@pytest.fixture(scope="module")
def products(real_data):
    """Daily series (time, site) of the three products in m3 m-3."""
    found = []
    for product, (folder, name) in FOLDERS.items():
        paths = [real_data(f"collocation_hawaii/{folder}/{cell}.nc") for cell in ("0165", "0166")]
        places = [place for path in paths for place in read_places(path, name)]
        frame = pd.DataFrame({name: daily_at(places, site) for name, site in SITES.items()})
        frame = frame.rename_axis(index="time", columns="site")
        found.append(xr.DataArray(frame, name=product))
    found[0] = found[0] / 100.0  # kg m-2 in a layer of 0.1 m
    return found


def test_error_variances_equal_pytesmo_and_the_rest_is_flagged(products):
    found = dp.triple_collocation(*products)
    days = xr.align(*products, join="inner")
    for site in range(len(SITES)):
        x, y, z = (array.values[:, site].astype(np.float64) for array in days)
        common = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
        assert found["n_samples"][site] == common.sum()
        _, deviation, beta = tcol_metrics(x[common], y[common], z[common])
        expected = np.square(deviation / beta)
        valid = found["flag"].values[site] == Flag.VALID
        assert valid == np.isfinite(expected).all()
        if valid:
            np.testing.assert_allclose(found["error_variance"][:, site], expected, rtol=1e-6)


def test_two_sites_have_a_negative_error_variance_of_gldas(products):
    found = dp.triple_collocation(*products)
    flagged = [name for name, flag in zip(SITES, found["flag"].values, strict=True) if flag]
    assert flagged == ["Kainaliu", "Kemole Gulch"]
    assert (found["flag"].values[:2] == Flag.NEGATIVE_ERROR_VARIANCE_1).all()
    assert (found["error_variance"].values[0, :2] < 0).all()
    np.testing.assert_allclose(found["weight"].sum("product"), 1.0)
    np.testing.assert_allclose(found["weight"][:, 0], found["weight"][:, 1])
    medians = found["weight"][:, 2:].median("site")
    np.testing.assert_allclose(found["weight"][:, 0], medians / medians.sum())
