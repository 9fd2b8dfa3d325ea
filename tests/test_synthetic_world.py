"""The demo Earth as arrays: physics, errors of the products, and what is known of them."""

import numpy as np
import pytest

from deepprofile import grid
from deepprofile.synthetic import EarthConfig, centred_window
from deepprofile.synthetic.column import DEEP_BOTTOM, EDGES, INTERFACES, STATE
from deepprofile.synthetic.config import STEPS_PER_DAY
from deepprofile.synthetic.domain import make_domain
from deepprofile.synthetic.noise import noise
from deepprofile.synthetic.products import error_profile, make_products
from deepprofile.synthetic.smap import LAYERS, make_smap, variables
from deepprofile.synthetic.soil import column_porosity, layer_weights, run_columns
from deepprofile.synthetic.truth import ERA5_LAYERS, depth_weights, make_truth
from deepprofile.synthetic.weather import STEP_SECONDS

CONFIG = EarthConfig(seed=5, n_days=720, spin_up_days=120, **centred_window(14))


@pytest.fixture(scope="module")
def truth():
    return make_truth(CONFIG)


@pytest.fixture(scope="module")
def smap(truth):
    return make_smap(CONFIG, truth)


@pytest.fixture(scope="module")
def products(truth):
    return make_products(CONFIG, truth)


def daily(series):
    return series.reshape(*series.shape[:-1], -1, STEPS_PER_DAY).mean(axis=-1)


def on_cells(product, domain):
    """Daily layer means of a product at the cells, bilinear, NaN beside the sea."""
    share = product.grid.at_cells(domain, np.ones(product.grid.land.sum()))
    values = product.values(slice(0, CONFIG.n_days * STEPS_PER_DAY))
    by_day = values.reshape(-1, STEPS_PER_DAY, *values.shape[1:]).mean(axis=1)
    at_cells = product.grid.at_cells(domain, by_day)
    return np.where(share > 0.999, at_cells, np.nan).transpose(2, 1, 0)


def column(layers, bounds):
    thickness = np.array([bottom - top for top, bottom in bounds])
    return np.einsum("clt,l->ct", layers, thickness)


def true_column(truth):
    return np.einsum("clt,l->ct", truth.run.daily, np.diff(INTERFACES))


def test_cells_lie_on_the_grid_and_in_four_tiles():
    domain = make_domain(EarthConfig())
    assert 450 <= domain.n_cells <= 600
    row, column = domain.rows[domain.row], domain.columns[domain.column]
    np.testing.assert_array_equal(domain.longitude, grid.longitudes()[column])
    np.testing.assert_array_equal(domain.latitude, grid.latitudes()[row])
    tiles = {(r // 56, c // 64) for r, c in zip(row, column, strict=True)}
    assert len(tiles) == 4
    assert 0.1 < 1.0 - domain.land.mean() < 0.4
    assert domain.elevation.max() > 1200


def test_water_is_conserved_by_the_columns(truth):
    steps = 200 * STEPS_PER_DAY
    weather = truth.weather._replace(
        **{name: field[:, :steps] for name, field in truth.weather._asdict().items()}
    )
    layers = list(zip(EDGES[:-1].tolist(), EDGES[1:].tolist(), strict=True))
    run = run_columns(truth.soil, weather, truth.season, layers, spin_up=0, want_state=True)
    state = dict(zip(STATE, run.state.transpose(1, 0, 2).astype(np.float64), strict=True))
    stored = 1000.0 * np.einsum("clt,l->ct", run.means.astype(np.float64), np.diff(EDGES))
    rain = weather.rain.astype(np.float64)
    leaving = sum(
        state[name]
        for name in ("overland_runoff_flux", "baseflow_flux", "land_evapotranspiration_flux")
    )
    gained = ((rain - leaving)[:, 1:] * STEP_SECONDS).sum(axis=1)
    change = (stored + state["snow_mass"])[:, -1] - (stored + state["snow_mass"])[:, 0]
    np.testing.assert_allclose(gained, change, atol=0.5)
    assert np.ptp(stored, axis=1).min() > 20.0


def test_soil_moisture_stays_between_zero_and_porosity(truth):
    pore = column_porosity(truth.soil.porosity)[:, :20, None]
    assert (truth.run.daily > 0.0).all()
    assert (truth.run.daily <= pore + 1e-6).all()


def test_step_means_and_daily_columns_agree(truth):
    weights = layer_weights(ERA5_LAYERS)[:, :20]
    expected = np.einsum("ml,clt->cmt", weights, truth.run.daily)
    np.testing.assert_allclose(daily(truth.era5), expected, atol=1e-5)


def test_winter_brings_snow_to_the_heights_only(smap):
    snow = smap.state[:, STATE.index("snow_mass")].max(axis=1)
    assert snow[smap.elevation > 1200].min() > 5.0
    assert np.median(snow[smap.elevation < 150]) < snow[smap.elevation > 1200].min()


def test_moisture_variables_of_smap_come_from_one_state(smap):
    fields = variables(smap, slice(0, 400))
    for i, name in enumerate(("sm_surface", "sm_rootzone", "sm_profile")):
        expected = fields[name] / smap.porosity[:, i, None]
        np.testing.assert_allclose(fields[f"{name}_wetness"], expected, rtol=1e-5)
        assert fields[f"{name}_wetness"].max() <= 1.0 + 1e-6
    assert LAYERS[2] == (0.0, DEEP_BOTTOM)
    shares = sum(
        fields[f"land_fraction_{name}"]
        for name in ("saturated", "unsaturated", "wilting", "snow_covered")
    )
    np.testing.assert_allclose(shares, 1.0, atol=1e-5)
    net = fields["net_downward_shortwave_flux"] + fields["net_downward_longwave_flux"]
    heat = sum(fields[f"heat_flux_{name}"] for name in ("sensible", "latent", "ground"))
    np.testing.assert_allclose(heat, net, atol=1e-2)


def test_smap_is_a_fair_but_imperfect_model_of_the_truth(truth, smap):
    elsewhere = ~truth.independent
    surface = daily(smap.moisture[:, 0])[elsewhere], daily(truth.surface)[elsewhere]
    root = daily(smap.moisture[:, 1])[elsewhere], true_column(truth)[elsewhere]
    for (estimate, reference), low, high in ((surface, 0.85, 0.985), (root, 0.7, 0.975)):
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(estimate, reference, strict=True)]
        assert low < np.median(r) < high
    assert not np.isclose(smap.soil.porosity, truth.soil.porosity)[elsewhere].any()
    rain = truth.weather.rain[:, 120 * STEPS_PER_DAY :]
    assert not np.allclose(smap.weather.rain[elsewhere], rain[elsewhere])


def test_errors_at_the_cells_have_the_intended_size(truth, products):
    domain, errors = truth.domain, CONFIG.era5_errors
    at_cells = products.era5.grid.at_cells(domain, products.era5.error.transpose(2, 1, 0))
    whole = products.era5.grid.at_cells(domain, np.ones(products.era5.grid.land.sum())) > 0.999
    found = at_cells[:, :, whole & ~truth.independent].std(axis=(0, 2))
    intended = np.hypot(*error_profile(errors, ERA5_LAYERS))
    np.testing.assert_allclose(found, intended, rtol=0.15)


def test_collocation_is_right_where_errors_are_independent(truth, smap, products):
    domain, reference = truth.domain, true_column(truth)
    triplet = np.stack(
        [
            daily(smap.moisture[:, 1]),
            column(on_cells(products.era5, domain), [(0.0, 0.07), (0.07, 0.28), (0.28, 1.0)]),
            column(on_cells(products.gldas, domain), [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)]),
        ]
    )
    chosen = np.flatnonzero(products.masks["independent"])
    assert len(chosen) >= 12
    ratios = []
    for cell in chosen:
        q = np.cov(triplet[:, cell])
        for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
            estimated = q[i, i] - q[i, j] * q[i, k] / q[j, k]
            fit = np.polyfit(reference[cell], triplet[i, cell], 1)
            realised = np.var(triplet[i, cell] - np.polyval(fit, reference[cell]))
            ratios.append(estimated / realised)
    assert 0.9 < np.median(ratios) < 1.1


def test_errors_of_the_gridded_products_are_shared_in_the_correlated_group(truth, products):
    def correlation(mask):
        root = [
            p.grid.at_cells(truth.domain, p.error.transpose(2, 1, 0))[:, 2]
            for p in (products.era5, products.gldas)
        ]
        cells = np.flatnonzero(mask & ~products.masks["no_product"])
        return np.median([np.corrcoef(root[0][:, c], root[1][:, c])[0, 1] for c in cells])

    masks = products.masks
    rest = ~(masks["correlated"] | masks["independent"])
    assert correlation(masks["correlated"]) > 0.5
    assert abs(correlation(rest)) < 0.4
    assert abs(correlation(masks["independent"])) < 0.15


def test_some_cells_have_no_product_and_the_grids_reach_beyond_the_window(truth, products):
    domain = truth.domain
    assert 0 < products.masks["no_product"].sum() < domain.n_cells / 3
    for product in (products.era5, products.gldas):
        boxes = product.grid
        assert boxes.longitude[0] < domain.longitude.min() - 2 * boxes.spacing + 1e-9
        assert boxes.latitude[-1] > domain.latitude.max() + 2 * boxes.spacing - 1e-9


def test_the_hard_world_spoils_the_surface_of_smap(truth, smap):
    hard = EarthConfig(seed=5, n_days=720, spin_up_days=120, hard=True, **centred_window(14))
    worse = make_smap(hard, truth)
    elsewhere = ~truth.independent

    def spread(state):
        error = daily(state.moisture[:, 0]) - daily(truth.surface)
        return np.median(error[elsewhere].std(axis=1))

    assert spread(worse) > 1.5 * spread(smap)
    assert hard.era5_errors.surface < CONFIG.era5_errors.surface
    assert spread(worse) > np.hypot(*error_profile(hard.era5_errors, ERA5_LAYERS))[0]


def test_noise_has_unit_variance_and_the_memory_asked_for():
    rng = np.random.default_rng(0)
    position = np.column_stack([np.arange(6) * 40.0, np.zeros(6)])
    series = noise(rng, 40_000, position, 10.0, np.array([0.0, 0.0, 0.0, 5.0, 5.0, 5.0]))
    np.testing.assert_allclose(series.std(axis=0), 1.0, atol=0.05)
    lagged = [np.corrcoef(s[5:], s[:-5])[0, 1] for s in series.T]
    np.testing.assert_allclose(lagged, [0, 0, 0, *[np.exp(-1.0)] * 3], atol=0.06)


@pytest.mark.parametrize("depth", [0.0, 0.005, 0.05, 0.31, 1.0])
def test_value_at_a_depth_is_linear_between_layer_middles(depth):
    middle = (INTERFACES[1:] + INTERFACES[:-1]) / 2
    profile = 0.1 + 0.2 * middle
    expected = 0.1 + 0.2 * np.clip(depth, middle[0], middle[-1])
    assert depth_weights(depth) @ profile == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": (0, 20)}, "rows 0 to 20 are not inside"),
        ({"columns": (2180, 2170)}, "columns 2180 to 2170"),
        ({"n_days": 0}, "n_days 0"),
        ({"station_hours": 5}, "station_hours 5"),
    ],
)
def test_impossible_worlds_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EarthConfig(**changes)
