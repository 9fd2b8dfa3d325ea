"""Estimates taken from real archives: every metric against plain pandas and pytesmo.

For TxSON and iRON the other side starts from the readings in the files; for the rest, and for the
0-100 cm column, from the series of the ground truth.
"""

import zipfile
from functools import cache

import numpy as np
import pandas as pd
import pyproj
import pytest
from pytesmo import metrics as pytesmo

from deepprofile.evaluation.assess import Settings, assess
from deepprofile.evaluation.estimates.climatology import Climatology
from deepprofile.evaluation.estimates.neighbour import NeighbourEstimate
from deepprofile.evaluation.estimates.sensor import SensorEstimate
from deepprofile.evaluation.reference.ground_truth import ground_truth
from deepprofile.evaluation.stations import merge_records, read_archive

TXSON, IRON = "ismn/ISMN_TxSON_2019_2021.zip", "ismn/ISMN_iRON_2019_2021.zip"
PARTS = {
    TXSON: None,
    IRON: None,
    "ismn/ISMN_V20250617_Hawaii_SCAN_COSMOS_sm.zip": ["Kainaliu", "SilverSword"],
    "ismn/ISMN_USCRN_2019_2021.zip": [
        *("Asheville-13-S", "Asheville-8-SSW", "Arco-17-SW", "Austin-33-NW"),
        *("Lincoln-11-SW", "Lincoln-8-ENE", "Stillwater-2-W", "Stillwater-5-WNW"),
    ],
}
"""Archives, and the stations that stand for the large ones, among them pairs of neighbours."""
MIN_DAYS, LIMIT_KM = 30, 100.0
DEPTHS = {"sensor_10": 0.10, "sensor_20": 0.20}
NAMES = [*DEPTHS, "neighbour", "climatology"]
SURFACE = (0.0, 0.05)
WEST, NORTH, SIDE = -17367530.4451614, 7314540.8306386, 9008.055210146
"""The grid in metres of EPSG:6933, as the NSIDC gives it."""


@pytest.fixture(scope="module")
def reference(real_data):
    parts = [read_archive(real_data(name), stations=chosen) for name, chosen in PARTS.items()]
    return ground_truth(merge_records(parts), min_depth=0.0)


@pytest.fixture(scope="module")
def metrics(reference):
    estimates = [SensorEstimate.of(reference, depth, name) for name, depth in DEPTHS.items()]
    estimates.append(NeighbourEstimate.of(reference, LIMIT_KM))
    settings = Settings("neighbour", min_days=MIN_DAYS, step=0)
    return assess(estimates, {"stations": reference}, settings).metrics


@pytest.fixture(scope="module")
def plain(real_data):
    """Series of TxSON and iRON from their readings, by row, column, top and bottom."""
    return {**plain_cells(real_data(TXSON)), **plain_cells(real_data(IRON))}


@pytest.fixture(scope="module")
def series(reference, plain):
    """All series, those of the two networks from their readings; the column apart."""
    frame = reference["soil_moisture"].to_pandas()
    places = [reference[name].to_numpy() for name in ("row", "column", "top", "bottom", "group")]
    found = {key: frame.iloc[i] for i, key in enumerate(zip(*places, strict=True))}
    time = frame.columns
    return {
        key: plain[key[:4]].reindex(time) if key[:4] in plain and key[4] != "0-100 cm" else values
        for key, values in found.items()
    }


def plain_cells(path) -> dict[tuple, pd.Series]:
    """Daily means of every cell and depth of an archive, from its text alone."""
    days: dict[tuple, dict[str, list[pd.Series]]] = {}
    transform = pyproj.Transformer.from_crs(4326, 6933, always_xy=True).transform
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "_sm_" not in name:
                continue
            with archive.open(name) as file:
                head = file.readline().decode().split()
                columns = ["day", "hour", "value", "flag"]
                table = pd.read_csv(file, sep=" ", usecols=range(4), names=columns)
            latitude, longitude, depth = float(head[3]), float(head[4]), float(head[6])
            table = table[(table["flag"] == "G") & table["value"].between(0, 1)]
            grouped = table.groupby("day")["value"]
            means = grouped.mean()[grouped.count() >= 18].astype(np.float32)
            means.index = pd.to_datetime(means.index, format="%Y/%m/%d")
            x, y = transform(longitude, latitude)
            row, column = int((NORTH - y) // SIDE), int((x - WEST) // SIDE)
            bounds = SURFACE if depth <= 0.05 else (depth, depth)
            bounds = (0.50, 0.50) if depth == 0.51 else bounds
            place = days.setdefault((row, column, *bounds), {})
            place.setdefault(name.split("/")[1], []).append(means)
    cells = {key: _mean([_mean(own) for own in found.values()]) for key, found in days.items()}
    return {key: values for key, values in cells.items() if len(values)}


def _mean(parts: list[pd.Series]) -> pd.Series:
    both = pd.concat(parts, axis=1, sort=True).astype(np.float64)
    return both.mean(axis=1).astype(np.float32)


def own_climatology(values: pd.Series) -> pd.Series:
    """Mean of the day of the year over the other years, where three have a value, the own too.

    Rounded as stored series are: ranks of equal means must not depend on the order of sums.
    """
    groups = values.groupby([values.index.month, values.index.day])
    others = groups.transform("count") - values.notna()
    total = groups.transform("sum") - values.fillna(0.0)
    mean = total / others.where(others >= 2)
    return mean.astype(np.float32).astype(np.float64).rename(None)


@cache
def centre(row: int, column: int) -> tuple[float, float]:
    """Longitude and latitude of a cell's centre in radians."""
    x, y = WEST + (column + 0.5) * SIDE, NORTH - (row + 0.5) * SIDE
    longitude, latitude = np.radians(pyproj.Proj(6933)(x, y, inverse=True))
    return float(longitude), float(latitude)


def kilometres(one: tuple, other: tuple) -> float:
    """Distance of two cells' centres by the haversine formula."""
    (x1, y1), (x2, y2) = centre(*one), centre(*other)
    part = np.sin((y2 - y1) / 2) ** 2 + np.cos(y1) * np.cos(y2) * np.sin((x2 - x1) / 2) ** 2
    return float(2 * 6371.0088 * np.arcsin(np.sqrt(part)))


def plain_estimates(series, key) -> dict[str, pd.Series]:
    """What each estimate says of a series; nothing of one that has nothing to say."""
    row, column, top, bottom, group = key
    values = series[key].astype(np.float64)
    found = {"climatology": own_climatology(values)}
    for name, depth in DEPTHS.items():
        reading = series.get((row, column, depth, depth, {0.1: "5-10 cm", 0.2: "20 cm"}[depth]))
        if reading is not None and (top, bottom) != (depth, depth):
            found[name] = reading.astype(np.float64)
    others = {
        other[:2]: kilometres(key[:2], other[:2])
        for other in series
        if other[2:] == (top, bottom, group) and other[:2] != (row, column)
    }
    near = sorted((distance, cell) for cell, distance in others.items() if distance <= LIMIT_KM)
    if near:
        found["neighbour"] = series[(*near[0][1], top, bottom, group)].astype(np.float64)
    return found


def plain_metrics(x: pd.Series, y: pd.Series, time: pd.DatetimeIndex) -> dict[str, float]:
    """Metrics of common days."""
    departures = [
        one.reindex(time) - one.reindex(time).rolling(35, center=True, min_periods=18).mean()
        for one in (x, y)
    ]
    anomaly_x, anomaly_y = pd.concat(departures, axis=1).dropna().T.to_numpy()
    r = np.corrcoef(x, y)[0, 1]
    ratios = x.std(ddof=0) / y.std(ddof=0), x.mean() / y.mean()
    assert pytesmo.pearson_r(x.to_numpy(), y.to_numpy()) == pytest.approx(r, abs=1e-9)
    return {
        "n": len(x),
        "bias": pytesmo.bias(x.to_numpy(), y.to_numpy()),
        "rmse": pytesmo.rmsd(x.to_numpy(), y.to_numpy()),
        "ubrmse": pytesmo.ubrmsd(x.to_numpy(), y.to_numpy()),
        "r": r,
        "anomaly_r": np.corrcoef(anomaly_x, anomaly_y)[0, 1],
        "spearman": x.corr(y, method="spearman"),
        "kge": 1 - np.sqrt((r - 1) ** 2 + (ratios[0] - 1) ** 2 + (ratios[1] - 1) ** 2),
    }


def test_real_series_equal_the_readings_of_the_files(reference, plain):
    at_depth = reference.isel(series=reference["group"].to_numpy() != "0-100 cm")
    ours = at_depth.isel(series=at_depth["network"].isin(["TxSON", "iRON"]).to_numpy())
    places = zip(*(ours[n].to_numpy() for n in ("row", "column", "top", "bottom")), strict=True)
    found = dict(zip(places, ours["soil_moisture"].to_numpy(), strict=True))
    assert found.keys() == plain.keys()
    assert len({key[:2] for key in plain}) >= 15
    for key, values in found.items():
        expected = plain[key].reindex(ours.indexes["time"]).to_numpy()
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def test_real_metrics_equal_plain_pandas_and_pytesmo_everywhere(series, metrics):
    """Every line of every cell and depth: its days, its metrics, and why it has none."""
    time = next(iter(series.values())).index
    keys = ["row", "column", "top", "bottom", "group"]
    compared = 0
    for key, lines in metrics.groupby(keys, sort=False):
        truth = series[key].astype(np.float64)
        own = {name: values.dropna() for name, values in plain_estimates(series, key).items()}
        lines = lines.set_index("estimate")
        used = [name for name in lines.index if np.isfinite(lines.at[name, "rmse"])]
        common = pd.concat([truth, *(own[name] for name in used)], axis=1, join="inner").dropna()
        for position, name in enumerate(used, start=1):
            expected = plain_metrics(common.iloc[:, position], common.iloc[:, 0], time)
            found = lines.loc[name, list(expected)].astype(float)
            np.testing.assert_allclose(found, list(expected.values()), rtol=0, atol=1e-6)
            compared += 1
        for name, line in lines.iterrows():
            with_truth = pd.concat([truth, own.get(name, truth[:0])], axis=1, join="inner").dropna()
            assert line["n_own"] == len(with_truth), (key, name)
            assert (line["reason"] != "") == (name not in used)
            if name not in used:
                shared = pd.concat([common, own.get(name, truth[:0])], axis=1, join="inner")
                few = min(len(with_truth), len(shared))
                assert few < max(MIN_DAYS, 0.5 * len(common)), (key, name, line["reason"])
    assert metrics["estimate"].unique().tolist() == NAMES
    assert compared > 200
    assert set(series) == {key for key, _ in metrics.groupby(keys)}


def test_real_climatology_equals_a_groupby(series, reference):
    climatology = Climatology.of(reference)
    known = 0
    for (row, column, top, bottom, group), values in series.items():
        if group == "0-100 cm":
            continue
        at = np.flatnonzero((climatology.row == row) & (climatology.column == column))
        found = climatology.values(at, top, bottom)[0]
        expected = own_climatology(values.astype(np.float64)).to_numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        known += int(np.isfinite(expected).sum())
    assert known > 30_000


def test_real_leaving_out_a_cell_leaves_its_neighbours_reading(reference):
    """TxSON: ten cells side by side; a cell's estimate does not change with the cell's own data."""
    inside = reference.isel(series=np.flatnonzero(reference["network"].to_numpy() == "TxSON"))
    whole = NeighbourEstimate.of(inside)
    cells = np.arange(len(whole.row))
    values = whole.values(cells, *SURFACE)
    _, distance = whole.neighbours(cells, *SURFACE)
    assert len(cells) == 10 and distance.max() < 30
    for cell in cells:
        own = (inside["row"] == whole.row[cell]) & (inside["column"] == whole.column[cell])
        changed = inside.assign(soil_moisture=inside["soil_moisture"].where(~own, 0.99))
        other = NeighbourEstimate.of(changed).values(cells[[cell]], *SURFACE)
        np.testing.assert_array_equal(other[0], values[cell])
