"""``dp.predict`` on labelled arrays, in memory and lazy."""

import json
import pickle
from importlib import resources

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from cloudpickle import dumps
from distributed import SchedulerPlugin, wait
from model_support import N_DAYS, WINDOW, make_auxiliary, make_forcing, make_model

from deepprofile.model.flags import Flag
from deepprofile.model.io import fingerprint
from deepprofile.model.labelled import predict
from deepprofile.model.precision import has_bfloat16
from deepprofile.model.prediction import predict_windows
from deepprofile.model.sliding import sliding_coefficients

TEMPLATE = "templates/coefficients.json"


@pytest.fixture(scope="module")
def model():
    return make_model()


def everywhere():
    """A land mask (y, x) of land alone."""
    return xr.ones_like(make_auxiliary()[0], dtype=np.uint8).drop_vars("feature")


def test_flags_say_why(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    forcing[40, 1, 0, 0] = np.nan  # a short gap
    forcing[40:45, 1, 0, 1] = np.nan  # a long one
    auxiliary[0, 1, 1] = np.nan
    land = everywhere()
    land[3, 4] = 0
    result = predict(model, forcing, auxiliary.chunk(), land=land, max_gap=3)
    flag = result["flag"].to_numpy()
    assert (flag[: WINDOW - 1, 0, 0] == Flag.NO_FULL_WINDOW).all()
    assert (flag[WINDOW - 1 : 40, 0, 0] == Flag.VALID).all()
    assert (flag[40:60, 0, 0] == Flag.GAP_FILLED).all()
    assert (flag[60:, 0, 0] == Flag.VALID).all()
    assert (flag[40:64, 0, 1] == Flag.MISSING_FORCING).all()
    assert (flag[64:, 0, 1] == Flag.VALID).all()
    assert (flag[:, 1, 1] == Flag.MISSING_FEATURES).all()
    assert (flag[:, 3, 4] == Flag.NOT_LAND).all()
    there = result["coefficients"].notnull().all("degree").to_numpy()
    np.testing.assert_array_equal(there, flag <= Flag.GAP_FILLED)
    assert not (result["coefficients"].notnull().any("degree").to_numpy() & ~there).any()
    assert result["flag"].attrs["flag_meanings"].split()[2] == "missing_forcing"


def test_labelled_prediction_is_that_of_the_windows(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    result = predict(model, forcing, auxiliary)
    series = forcing.to_numpy().reshape(N_DAYS, 3, -1).transpose(2, 1, 0).copy()
    expected = predict_windows(model, series, auxiliary.to_numpy().reshape(2, -1).T.copy())
    got = result["coefficients"].to_numpy()[WINDOW - 1 :].reshape(-1, 10, 20)
    np.testing.assert_allclose(got.transpose(2, 0, 1), expected, rtol=1e-4, atol=1e-6)
    assert result["coefficients"].dims == ("time", "degree", "y", "x")
    assert result["coefficients"].dtype == np.float32
    assert result["flag"].dtype == np.uint8
    assert result.attrs["model_fingerprint"] == fingerprint(model)
    assert "latitude" in result.coords
    assert "variable" not in result.coords
    assert result.profile.layer(0, 1).dims == ("time", "y", "x")


@pytest.mark.parametrize("chunks", [(32, 3, 2, 3), (10, 2, 4, 5), (70, 3, 1, 1), (1, 3, 4, 5)])
def test_lazy_equals_direct_for_any_chunks(model, chunks):
    forcing, auxiliary, land = make_forcing(), make_auxiliary(), everywhere()
    holes = np.random.default_rng(4).random(forcing.shape) < 0.003
    forcing = forcing.where(~holes)
    forcing[30:36, 0, 1, 3] = np.nan
    land[2, 2] = 0
    direct = predict(model, forcing, auxiliary, land=land)
    pieces = dict(zip(forcing.dims, chunks, strict=True))
    lazy = predict(model, forcing.chunk(pieces), auxiliary, land=land)
    assert isinstance(lazy["coefficients"].data, da.Array)
    assert lazy["coefficients"].data.numblocks[0] == -(-N_DAYS // chunks[0])
    assert lazy["coefficients"].data.numblocks[2:] == (-(-4 // chunks[2]), -(-5 // chunks[3]))
    np.testing.assert_array_equal(lazy["flag"].to_numpy(), direct["flag"].to_numpy())
    assert set(np.unique(direct["flag"])) == {0, 1, 2, 3, 5}
    xr.testing.assert_allclose(lazy.compute(), direct, rtol=1e-4, atol=1e-6)


def test_order_of_dimensions_does_not_matter(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    turned = predict(model, forcing.transpose("x", "variable", "time", "y"), auxiliary.T)
    xr.testing.assert_allclose(turned, predict(model, forcing, auxiliary), rtol=1e-5, atol=1e-6)


def counting_scheduler(counter):
    def get(graph, keys, **kwargs):
        counter.append(graph)
        return dask.get(graph, keys, **kwargs)

    return get


@pytest.mark.parametrize("forcing_chunks", [{"time": 16, "y": 2}, {"time": -1}, {"x": 1}])
def test_building_the_graph_computes_nothing(model, forcing_chunks):
    computes = []
    forcing, auxiliary = make_forcing().chunk(forcing_chunks), make_auxiliary().chunk(y=2)
    with dask.config.set(scheduler=counting_scheduler(computes)):
        lazy = predict(model, forcing, auxiliary, land=everywhere().chunk(x=2))
        assert computes == []
        lazy["flag"].compute()
    assert len(computes) == 1


def test_later_training_does_not_change_a_lazy_result():
    model = make_model()
    forcing, auxiliary = make_forcing(), make_auxiliary()
    lazy = predict(model, forcing.chunk(time=16), auxiliary)
    direct = predict(model, forcing, auxiliary)
    with torch.no_grad():
        model.heads.bias_out.add_(1)
    xr.testing.assert_allclose(lazy.compute(), direct, rtol=1e-4, atol=1e-6)


def test_the_model_is_in_the_graph_once_and_tasks_are_small():
    model = make_model(n_coefficients=40, width=64)  # about 0.7 MB
    forcing = make_forcing()
    source = da.zeros(forcing.shape, chunks=(10, 3, 2, 5), dtype=np.float32)
    lazy = predict(model, forcing.copy(data=source), make_auxiliary().chunk(y=2))
    (optimised,) = dask.optimize(lazy)
    graph = dict(optimised.__dask_graph__())
    sizes = {key: len(pickle.dumps(task)) for key, task in graph.items()}
    large = {key: size for key, size in sizes.items() if size > 8_000}
    assert list(large) == [f"model-cpu-{fingerprint(model)}"]
    assert sum("predict_part" in str(key) for key in graph) >= 14


class TaskSizes(SchedulerPlugin):
    """Notes the bytes of every task that a scheduler is given, as they are sent to workers."""

    name = "task_sizes"

    def __init__(self):
        self.sizes = {}

    def update_graph(self, scheduler, *, tasks, **_):
        self.sizes |= {task: len(dumps(scheduler.tasks[task].run_spec)) for task in tasks}


@pytest.mark.parametrize("chunks", [(10, 3, 2, 5), (35, 3, 4, 1)])
def test_a_cluster_gets_the_model_once_and_small_tasks(client, chunks):
    model = make_model(n_coefficients=40, width=64)  # about 0.7 MB
    shape = make_forcing().shape
    forcing = make_forcing().copy(data=da.random.default_rng(2).normal(size=shape, chunks=chunks))
    auxiliary = make_auxiliary()
    lazy = predict(model, forcing, auxiliary.chunk(y=2))
    client.register_plugin(TaskSizes())
    persisted = client.persist(lazy)
    wait(persisted)
    sizes = client.run_on_scheduler(
        lambda dask_scheduler: dask_scheduler.plugins["task_sizes"].sizes
    )
    client.unregister_scheduler_plugin("task_sizes")
    large = {key: size for key, size in sizes.items() if size > 8_000}
    assert list(large) == [f"model-cpu-{fingerprint(model)}"]
    assert len(sizes) > np.prod(lazy["coefficients"].data.numblocks)
    direct = predict(model, forcing.compute(), auxiliary)
    xr.testing.assert_allclose(persisted.compute(), direct, rtol=1e-4, atol=1e-6)


def with_units(array, dim, units):
    return array.assign_coords(units=(dim, list(units)))


def test_units_are_checked_where_both_are_known():
    forcing, auxiliary = make_forcing(), make_auxiliary()
    model = make_model(variable_units=("mm", "K", "m"), feature_units=("m", "degree"))
    expected = predict(model, forcing, auxiliary)
    known = with_units(forcing, "variable", ("mm", "K", "m"))
    labelled = predict(model, known, with_units(auxiliary, "feature", ("m", "degree")))
    xr.testing.assert_identical(labelled.drop_vars("units", errors="ignore"), expected)
    celsius = with_units(forcing, "variable", ("mm", "degC", "m"))
    with pytest.raises(ValueError, match=r"variable number 1 \(heat\) is in 'degC': .* 'K'"):
        predict(model, celsius, auxiliary)
    with pytest.raises(ValueError, match=r"\(elevation\) is in 'km': .* 'm' \(1 more differ\)"):
        predict(model, forcing, with_units(auxiliary, "feature", ("km", "rad")))
    predict(make_model(), celsius, auxiliary)  # this model knows no units


def test_a_window_is_enough_and_less_is_not(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    flag = predict(model, forcing[:WINDOW], auxiliary)["flag"]
    assert (flag[:-1] == Flag.NO_FULL_WINDOW).all()
    assert (flag[-1] == Flag.VALID).all()
    for short in (forcing[: WINDOW - 1], forcing[:0], forcing[: WINDOW - 1].chunk()):
        with pytest.raises(ValueError, match=f"days: expected at least the {WINDOW} of one window"):
            predict(model, short, auxiliary)


def test_land_without_features_is_an_error_in_memory_and_a_flag_else(model):
    forcing, auxiliary, land = make_forcing(), make_auxiliary(), everywhere()
    auxiliary[1, 1, 1:3] = np.nan
    with pytest.raises(ValueError, match=r"2 land cells .* number 1 \(slope\) in 2\. .*land="):
        predict(model, forcing, auxiliary, land=land)
    computes = []
    with dask.config.set(scheduler=counting_scheduler(computes)):
        lazy = predict(model, forcing.chunk(), auxiliary.chunk(), land=land)
        assert computes == []
    assert (lazy["flag"][:, 1, 1:3] == Flag.MISSING_FEATURES).all()
    unknown = predict(model, forcing, auxiliary)
    assert (unknown["flag"][:, 1, 1:3] == Flag.MISSING_FEATURES).all()
    masked = predict(model, forcing, auxiliary, land=land & auxiliary.notnull().all("feature"))
    assert (masked["flag"][:, 1, 1:3] == Flag.NOT_LAND).all()
    xr.testing.assert_equal(masked["coefficients"], unknown["coefficients"])


def test_infinite_values_are_an_error_in_memory_and_missing_else(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    forcing[40:45, 1, 0, 1], forcing[50, 2, 3, 3] = np.inf, -np.inf
    with pytest.raises(ValueError, match=r"variable number 1 \(heat\) has 5 infinite values"):
        predict(model, forcing, auxiliary)
    lazy = predict(model, forcing.chunk(time=16), auxiliary.chunk()).compute()
    xr.testing.assert_allclose(
        lazy, predict(model, forcing.where(np.isfinite), auxiliary), rtol=1e-4, atol=1e-6
    )
    assert (lazy["flag"][40:64, 0, 1] == Flag.MISSING_FORCING).all()
    endless = auxiliary.copy()
    endless[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match=r"feature number 0 \(elevation\) has 1 infinite values"):
        predict(model, make_forcing(), endless)
    assert (predict(model, make_forcing(), endless.chunk())["flag"][:, 0, 0] == 4).all()


def test_other_types_of_numbers_and_of_land_masks_do(model):
    forcing, auxiliary = make_forcing().round(), make_auxiliary()
    expected = predict(model, forcing, auxiliary, land=everywhere())
    for numbers in (np.float64, np.int16):
        got = predict(model, forcing.astype(numbers), auxiliary.astype(float), land=everywhere())
        xr.testing.assert_equal(got, expected)
    sea = everywhere().astype(float)
    sea[2, 2] = np.nan
    result = predict(model, forcing, auxiliary, land=sea)
    assert (result["flag"][:, 2, 2] == Flag.NOT_LAND).all()
    assert int((result["flag"] == Flag.NOT_LAND).sum()) == N_DAYS


def test_a_place_without_land_has_flags_alone(model):
    nowhere = xr.zeros_like(everywhere())
    for forcing in (make_forcing(), make_forcing().chunk(time=32)):
        result = predict(model, forcing, make_auxiliary(), land=nowhere)
        assert (result["flag"] == Flag.NOT_LAND).all()
        assert result["coefficients"].isnull().all()


def test_arguments_of_other_types_are_explained(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    with pytest.raises(TypeError, match=r"model is a str: .*dp\.load_model"):
        predict("models/first", forcing, auxiliary)
    with pytest.raises(TypeError, match=r"forcing is a Dataset: expected an xarray\.DataArray"):
        predict(model, forcing.to_dataset(name="forcing"), auxiliary)
    with pytest.raises(TypeError, match="auxiliary is a ndarray"):
        predict(model, forcing, auxiliary.to_numpy())
    with pytest.raises(ValueError, match="land has dimensions"):
        predict(model, forcing, auxiliary, land=everywhere().expand_dims("time"))


def test_precision_is_recorded_and_an_unknown_one_refused(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    assert predict(model, forcing, auxiliary).attrs["precision"] == "float32"
    with pytest.raises(ValueError, match="precision 'float16': expected one of float32"):
        predict(model, forcing.chunk(), auxiliary, precision="float16")


@pytest.mark.skipif(not has_bfloat16(), reason="no products of bfloat16 here")
def test_precision_reaches_the_engine(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    fine = predict(model, forcing, auxiliary)
    rough = predict(model, forcing, auxiliary, precision="bfloat16")
    lazy = predict(model, forcing.chunk(time=16), auxiliary, precision="bfloat16")
    assert rough.attrs["precision"] == lazy.attrs["precision"] == "bfloat16"
    off = np.abs(rough["coefficients"] - fine["coefficients"]).max()
    assert 0 < off < 0.1
    # Blocks of other shapes may sum in another order: a step of bfloat16 (2^-8) here and there.
    xr.testing.assert_allclose(lazy.compute(), rough, rtol=2**-6, atol=1e-2)


def test_a_model_whose_limits_are_no_numbers_is_refused():
    broken = make_model()
    broken.series_maximum[1] = np.nan
    with pytest.raises(ValueError, match=r"\(heat\) has limits 0 to nan: .*set_limits"):
        predict(broken, make_forcing(), make_auxiliary())


@pytest.mark.parametrize("max_gap", ["3", 2.5, -1, True])
def test_a_gap_that_is_no_number_of_days_is_refused(model, max_gap):
    with pytest.raises(ValueError, match="whole number of days"):
        predict(model, make_forcing(), make_auxiliary(), max_gap=max_gap)


def test_forcing_in_memory_in_other_units_is_refused(model):
    forcing = make_forcing()
    forcing[:, 1] = forcing[:, 1] * 100 + 500
    with pytest.raises(ValueError, match=r"variable number 1 \(heat\) lies at"):
        predict(model, forcing, make_auxiliary())


def test_rare_values_in_other_units_are_refused(model):
    forcing = xr.zeros_like(make_forcing())
    forcing[::10, 0] = 300.0  # rain on every tenth day, a hundredfold
    with pytest.raises(ValueError, match=r"variable number 0 \(rain\)"):
        predict(model, forcing, make_auxiliary())


def test_lazy_forcing_in_other_units_is_refused_when_it_is_computed(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    forcing[:, 1] = forcing[:, 1] * 1e3 + 5e3
    lazy = predict(model, forcing.chunk(time=32, x=2), auxiliary)
    with pytest.raises(ValueError, match=r"normalisation: variable number 1 \(heat\) lies at"):
        lazy.compute()
    sea = everywhere()
    sea[:, 2:] = 0
    forcing[:, 1, :, :2] = 0  # what lies at sea is not looked at
    predict(model, forcing.chunk(time=32, x=5), auxiliary, land=sea).compute()


@pytest.mark.parametrize("place", ["cold", "constant", "one cell"])
def test_a_chunk_that_is_unlike_the_others_is_computed(model, place):
    forcing = make_forcing()
    if place == "cold":
        forcing[..., 0] -= 4  # alone it would be refused in memory
    elif place == "constant":
        forcing[:, 2] = 0
    else:
        forcing = forcing[:, :, :1, :1]
    auxiliary = make_auxiliary()[:, : forcing.sizes["y"], : forcing.sizes["x"]]
    lazy = predict(model, forcing.chunk(time=16, y=2, x=1), auxiliary).compute()
    xr.testing.assert_allclose(lazy, predict(model, forcing, auxiliary), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_features_in_other_units_are_refused(model, lazy):
    forcing, auxiliary = make_forcing(), make_auxiliary() * 100 + 50
    with pytest.raises(ValueError, match=r"auxiliary does not fit .*number 0 \(elevation\)"):
        predict(model, forcing, auxiliary.chunk() if lazy else auxiliary)
    if lazy:
        late = predict(model, forcing.chunk(), auxiliary.chunk())
        with pytest.raises(ValueError, match="auxiliary does not fit"):
            late.compute()
    else:
        with pytest.raises(ValueError, match="auxiliary does not fit"):
            predict(model, forcing.chunk(), auxiliary)


def test_an_untrained_model_is_refused_before_anything_is_read():
    fresh = make_model()
    fresh.series_maximum.fill_(1)
    with pytest.raises(ValueError, match=r"the model is untrained: .*dp\.load_model"):
        predict(fresh, make_forcing().chunk(), make_auxiliary())


def test_other_calendars_are_refused_with_the_way_out(model):
    forcing = make_forcing()
    other = forcing.convert_calendar("noleap", dim="time")
    with pytest.raises(ValueError, match=r"expected datetime64\. .*convert_calendar"):
        predict(model, other, make_auxiliary())
    back = other.convert_calendar("standard", use_cftime=False)  # 29 February is not in it
    with pytest.raises(ValueError, match=r"2020-02-28 to 2020-03-01: .*reindex"):
        predict(model, back, make_auxiliary())
    predict(model, forcing.assign_coords(time=np.arange(N_DAYS)), make_auxiliary())


def test_what_is_wrong_with_the_days_is_said_with_what_helps(model):
    forcing, days = make_forcing(), make_forcing()["time"].to_numpy()
    hours = days[0] + np.arange(N_DAYS) * np.timedelta64(1, "h")
    for times, message in (
        (days[::-1], r"2020-03-10 to 2020-03-09: .*sortby"),
        (np.insert(days, 5, days[5])[:-1], r"2020-01-06 to 2020-01-06: .*drop_duplicates"),
        (hours, r"2020-01-01 to 2020-01-01T01:00:00: .*resample"),
        (np.append(days[:-1], np.datetime64("NaT")), "to NaT: .*no time"),
        (np.append(days[:-1], days[-1] + np.timedelta64(1, "D")), r"2020-03-11: .*reindex"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(model, forcing.assign_coords(time=times), make_auxiliary())


def test_cells_that_differ_are_said_plainly(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    with pytest.raises(ValueError, match=r"auxiliary .* same cells: 'x' has 5 and 4 cells\."):
        predict(model, forcing, auxiliary[:, :, :4])
    moved = everywhere().assign_coords(y=[0.0, -9.0, -18.5, -27.0])
    with pytest.raises(ValueError, match=r"land .*: 'y' number 2 is -18\.0 and -18\.5\."):
        predict(model, forcing, auxiliary, land=moved)
    bare = auxiliary.drop_vars(("y", "x"))
    xr.testing.assert_equal(predict(model, forcing, bare), predict(model, forcing, auxiliary))


def test_advice_on_names_and_units_is_what_helps():
    model = make_model(variable_units=("mm", "K", "m"))
    forcing, auxiliary = make_forcing(), make_auxiliary()
    for given, message in (
        (with_units(forcing, "variable", ("mm", "degC", "m")), r"'K'\. Convert to the units of"),
        (forcing[:, ::-1], r"\.sel\(variable=list\(model\.config\.variables\)\)"),
        (forcing[:, 1:], r"the model expects 3; missing: rain\. Give all of"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(model, given, auxiliary)


def test_complex_numbers_are_refused(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    with pytest.raises(TypeError, match="forcing is complex"):
        predict(model, forcing.astype(complex), auxiliary)
    series = np.zeros((1, 3, WINDOW), complex)
    with pytest.raises(TypeError, match="series is complex"):
        sliding_coefficients(model, series, np.zeros((1, 2)))


def test_coefficients_are_described_as_in_the_cube(model):
    cube = json.loads((resources.files("deepprofile.store") / TEMPLATE).read_text())["arrays"]
    result = predict(model, make_forcing(), make_auxiliary())
    described = cube["coefficients"]["attributes"]
    attributes = result["coefficients"].attrs
    assert attributes == {name: described[name] for name in ("units", "long_name", "comment")}
    assert result["degree"].attrs == cube["degree"]["attributes"]
    assert result["degree"].dtype == cube["degree"]["data_type"]
