"""Assessments: days by value and kept series against plain loops, parts against the whole."""

from bisect import bisect_right

import numpy as np
import pandas as pd
import pytest
from evaluation_support import memory_noise

from deepprofile.evaluation.assess import STEPS, Settings, assess, merge, step_for, write_tables
from deepprofile.evaluation.assess import tables as tables_of
from deepprofile.evaluation.assessment import DENSITY_EDGES
from deepprofile.evaluation.estimates.base import LayerEstimate, MeanEstimate, ProfileEstimate
from deepprofile.evaluation.estimates.climatology import Climatology
from deepprofile.evaluation.reference.series import build_reference
from deepprofile.evaluation.skill.intercomparison import intercompare
from deepprofile.evaluation.skill.tables import evaluate

START = np.datetime64("2017-11-10")
DEPTHS = (("5-10 cm", 0.1), ("20 cm", 0.2), ("50 cm", 0.5))
N_DAYS, N_CELLS = 420, 5
LAYERS = {"a": [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)], "b": [(0.0, 0.05), (0.0, 1.0)]}
SETTINGS = Settings("profile", replicates=3, products=("a", "b"), step=10, climatology=False)


def days(first, number):
    return START + first + np.arange(number)


def moisture(rng, *shape):
    """Values about 0.25 m³ m⁻³; some on the edges of classes, some beyond all classes."""
    values = 0.25 + 0.08 * memory_noise(rng, shape)
    values = np.where(rng.random(shape) < 0.3, np.round(values, 2), values)
    return np.where(rng.random(shape) < 0.02, rng.choice([-0.03, 0.6, 0.72], shape), values)


def make_reference(rng, first, number, rows, depths=DEPTHS, split="validation"):
    table = pd.DataFrame(
        [(row, 7, group, depth, depth) for row in rows for group, depth in depths],
        columns=["row", "column", "group", "top", "bottom"],
    )
    table["cell_class"], table["network"] = np.where(table["row"] % 2, "core", "extra"), "NET"
    table["split"] = split
    values = moisture(rng, len(table), number).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    return build_reference(days(first, number), table, values, np.ones(values.shape, "u2"))


def make_estimates(rng, rows=range(10, 10 + N_CELLS)):
    rows, columns = np.array(rows), np.full(len(rows), 7)
    n = rows.size
    a, b = (
        LayerEstimate(
            name, rows, columns, days(0, N_DAYS), layers, moisture(rng, n, N_DAYS, len(layers))
        )
        for name, layers in LAYERS.items()
    )
    coefficients = 0.05 * rng.normal(size=(n, N_DAYS, 3))
    coefficients[..., 0] += moisture(rng, n, N_DAYS)
    few = rows[: max(n - 2, 0)]  # an estimate that has not all cells
    late = LayerEstimate(
        "late",
        few,
        columns[: few.size],
        days(5, 400),
        [(0.0, 1.0)],
        moisture(rng, few.size, 400, 1),
    )
    profile = ProfileEstimate("profile", rows, columns, days(0, N_DAYS), coefficients)
    return [profile, a, b, late, MeanEstimate.of("mean", [a, b])]


@pytest.fixture(scope="module")
def estimates():
    return make_estimates(np.random.default_rng(1))


@pytest.fixture(scope="module")
def references():
    rng = np.random.default_rng(2)
    rows = range(10, 10 + N_CELLS)
    shorter = make_reference(rng, -30, 390, [12, 10, 14], DEPTHS[:2])
    return {"stations": make_reference(rng, 3, 415, rows), "other": shorter}


def value_of(estimate, row, depth, day):
    """Straight from the arrays: NaN where there is none."""
    if isinstance(estimate, MeanEstimate):
        return np.mean([value_of(member, row, depth, day) for member in estimate.members])
    cells, time = list(estimate.row), int((day - estimate.time[0]).astype(int))
    if row not in cells or not 0 <= time < len(estimate.time):
        return np.nan
    cell = cells.index(row)
    if isinstance(estimate, ProfileEstimate):
        return float(sum(c * depth**k for k, c in enumerate(estimate.coefficients[cell, time])))
    layer = min(
        (bottom - top, i)
        for i, (top, bottom) in enumerate(estimate.layers)
        if top < depth <= bottom
    )[1]
    return float(estimate.soil_moisture[cell, time, layer])


def by_hand(estimates, reference, s):
    """Days, truth, and what each estimate says of a series, on the days of the reference."""
    row, depth = int(reference["row"][s]), float(reference["top"][s])
    found = {e.name: {} for e in estimates}
    truth = dict(zip(reference["time"].values.astype("M8[D]"), reference["soil_moisture"][s].values,
                     strict=True))  # fmt: skip
    for e in estimates:
        table = {day: value_of(e, row, depth, day) for day in truth}
        found[e.name] = table
    return truth, found


def test_days_by_value_and_series_are_those_of_plain_loops(estimates, references):
    reference = references["other"].isel(series=[0, 1, 4])
    reference["split"] = ("series", np.array(["train", "", ""]))
    reference["cell_class"] = ("series", np.array(["core", "extra", "unqualified"]))
    parts = ["train", "", "unqualified"]
    step = 7
    settings = Settings("profile", step=step, climatology=False, batch=2, threads=2)
    found = assess(estimates, {"x": reference}, settings)
    counts, lines = {}, {}
    for s in range(reference.sizes["series"]):
        truth, said = by_hand(estimates, reference, s)
        takes_part = {n for n, v in said.items() if np.isfinite(list(v.values())).any()}
        for name in takes_part:
            for day, value in truth.items():
                if np.isfinite([value, *(said[other][day] for other in takes_part)]).all():
                    key = ("x", parts[s], name, str(reference["group"].values[s]))
                    table = counts.setdefault(key, np.zeros((60, 60), int))
                    place = [
                        min(max(bisect_right(DENSITY_EDGES.tolist(), float(v)) - 1, 0), 59)
                        for v in (value, said[name][day])
                    ]
                    table[tuple(place)] += 1
        spans = {}
        for name, values in {"truth": truth, **said}.items():
            for day, value in values.items():
                if np.isfinite(value) and day >= START:
                    begins = int(day.astype(int)) // step * step
                    spans.setdefault((name, begins), []).append(float(value))
        lines[int(reference["row"][s]), str(reference["group"].values[s])] = {
            key: np.mean(values) for key, values in spans.items()
        }
    assert found.density.keys() == counts.keys()
    for key, expected in counts.items():
        np.testing.assert_array_equal(found.density[key], expected)
    series = found.series
    assert (series.step, series.days[0] % step) == (step, 0)
    assert np.all(np.diff(series.days) == step)
    for i, (row, group) in enumerate(zip(series.table["row"], series.table["group"], strict=True)):
        for name, values in {"truth": series.truth, **series.estimates}.items():
            expected = [lines[row, group].get((name, int(day)), np.nan) for day in series.days]
            np.testing.assert_allclose(values[i], expected, rtol=1e-6, err_msg=f"{name} {row}")
    assert set(series.table["compared"]) == {"at 0.1 m", "at 0.2 m"}


def test_daily_series_are_the_values_themselves(estimates, references):
    reference = references["stations"].isel(series=[4])
    settings = Settings("profile", step=1, climatology=False)
    series = assess(estimates, {"x": reference}, settings).series
    truth, said = by_hand(estimates, reference, 0)
    dates = series.days.astype("M8[D]")
    for name, values in {"truth": (truth, series.truth), **{
        n: (v, series.estimates[n]) for n, v in said.items()}}.items():  # fmt: skip
        expected = np.array([values[0].get(day, np.nan) for day in dates], np.float32)
        np.testing.assert_allclose(values[1][0], expected, rtol=1e-6, err_msg=name)


def part_of(estimates, references, rows):
    """The same with some cells only."""
    kept = {}
    for name, one in references.items():
        kept[name] = one.isel(series=np.flatnonzero(np.isin(one["row"], rows)))
    return [restricted(one, rows) for one in estimates], kept


def restricted(estimate, rows):
    here = np.flatnonzero(np.isin(estimate.row, rows))
    axes = (estimate.name, estimate.row[here], estimate.column[here], estimate.time)
    if isinstance(estimate, MeanEstimate):
        return MeanEstimate(*axes, [restricted(member, rows) for member in estimate.members])
    if isinstance(estimate, ProfileEstimate):
        return ProfileEstimate(*axes, estimate.coefficients[here])
    return LayerEstimate(*axes, estimate.layers, estimate.soil_moisture[here])


PARTITIONS = (
    [[10, 11, 12, 13, 14]],
    [[12], [14, 10], [13, 11]],
    [[14], [13], [12], [11], [10]],
    [[11, 14, 13], [10, 12]],
)


@pytest.mark.parametrize("parts", PARTITIONS)
def test_parts_of_the_cells_in_any_order_give_what_the_whole_gives(estimates, references, parts):
    whole = assess(estimates, references, SETTINGS)
    merged = merge([assess(*part_of(estimates, references, rows), SETTINGS) for rows in parts])
    for name in ("metrics", "pairs", "intercomparison"):
        assert len(getattr(whole, name))
        pd.testing.assert_frame_equal(getattr(merged, name), getattr(whole, name), check_exact=True)
    assert list(merged.density) == list(whole.density)
    for key, counts in whole.density.items():
        np.testing.assert_array_equal(merged.density[key], counts)
    pd.testing.assert_frame_equal(merged.series.table, whole.series.table)
    np.testing.assert_array_equal(merged.series.days, whole.series.days)
    np.testing.assert_array_equal(merged.series.truth, whole.series.truth)
    assert list(merged.series.estimates) == list(whole.series.estimates)
    for name, values in whole.series.estimates.items():
        np.testing.assert_array_equal(merged.series.estimates[name], values, err_msg=name)


def test_metrics_and_intercomparison_are_those_of_their_own_functions(estimates, references):
    found = assess(estimates, references, SETTINGS)
    options = {"replicates": SETTINGS.replicates, "min_days": SETTINGS.min_days}
    alone = evaluate(estimates, references["other"], name="other", **options)
    order = ["row", "column", "top", "bottom", "group"]
    alone = alone.sort_values(order, kind="stable", ignore_index=True)
    mine = found.metrics[found.metrics["reference"] == "other"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone, check_exact=True)
    pairs = found.pairs
    assert set(pairs["other"]) == {"a", "b", "late", "mean"}
    assert set(pairs["reference"]) == {"stations", "other"}
    lines = intercompare(estimates[0], estimates[1:3]).table(SETTINGS.min_days)
    pd.testing.assert_frame_equal(
        found.intercomparison[lines.columns], lines, check_exact=True, check_like=True
    )
    classes = found.intercomparison.groupby("row")["cell_class"].first().to_dict()
    assert classes == {10: "extra", 11: "core", 12: "extra", 13: "core", 14: "extra"}
    assert set(found.intercomparison["split"]) == {"validation"}


def test_without_replicates_or_step_there_are_no_limits_pairs_or_series(estimates, references):
    found = assess(estimates, references, Settings("profile", step=0, climatology=False))
    assert found.pairs.empty
    assert found.intercomparison.empty
    assert found.series is None
    assert "r_low" not in found.metrics
    assert merge([found, found]).series is None


def test_an_estimate_that_never_meets_the_reference_is_told_why(references):
    rng = np.random.default_rng(3)
    rows = np.array([10, 11])
    layers, columns = [(0.0, 1.0)], np.array([7, 7])
    early = days(-5000, 50)
    never = LayerEstimate("never", rows, columns, early, layers, moisture(rng, 2, 50, 1))
    none = LayerEstimate("no days", rows, columns, early[:0], layers, np.empty((2, 0, 1)))
    away = LayerEstimate("away", rows + 900, columns, days(0, 50), layers, moisture(rng, 2, 50, 1))
    chosen = {"x": references["stations"].isel(series=slice(0, 6))}
    reasons = {
        "never": "the estimate has no day in common with the reference",
        "no days": "the estimate has no day in common with the reference",
        "away": "the estimate lacks this cell",
    }
    for some in ([never, none, away], [never, none]):
        settings = Settings("never", replicates=2, step=30, products=("no days",))
        found = assess(some, chosen, settings)
        table = found.metrics
        assert table[["r", "rmse"]].isna().all(axis=None)
        assert (table["estimate"].value_counts() == 6).all()
        for name, reason in table.groupby("estimate")["reason"].unique().items():
            assert list(reason) == [reasons[name]]
        assert set(table["estimate"]) == {one.name for one in some}
        assert not found.density
        assert np.isfinite(found.series.truth).any()
        assert not any(np.isfinite(v).any() for v in found.series.estimates.values())
        assert (found.intercomparison["reason"] == "0 common days, 30 needed").all()


def test_nothing_is_missing_without_a_reason(estimates, references):
    found = assess(estimates, references, Settings("profile", min_days=250, climatology=False))
    missing = found.metrics[["bias", "r", "rmse", "ubrmse", "anomaly_r", "spearman", "kge"]].isna()
    assert missing.any(axis=None)
    assert ((found.metrics["reason"] != "") == missing.any(axis=1)).all()


def test_a_series_that_no_estimate_covers_is_still_kept(references):
    rng = np.random.default_rng(4)
    shallow = LayerEstimate(
        "shallow", np.array([10]), np.array([7]), days(0, 99), [(0.0, 0.1)],
        moisture(rng, 1, 99, 1),
    )  # fmt: skip
    reference = references["stations"].isel(series=slice(0, 3))
    found = assess([shallow], {"x": reference}, Settings("shallow", climatology=False))
    assert list(found.metrics["group"]) == ["5-10 cm"]
    assert list(found.series.table["group"]) == ["5-10 cm", "20 cm", "50 cm"]
    expected = reference["soil_moisture"].values[:, :96]
    np.testing.assert_array_equal(found.series.truth, expected)
    assert np.isfinite(found.series.estimates["shallow"]).any(axis=1).tolist() == [
        True,
        False,
        False,
    ]


def test_climatology_is_a_baseline_where_three_years_may_give_one(estimates, references):
    rng = np.random.default_rng(5)
    years = make_reference(rng, 0, 900, [10], DEPTHS[:1])
    years["soil_moisture"][:] = np.where(np.isfinite(years["soil_moisture"]), 0.2, 0.3)
    found = assess(estimates, {"long": years, **references}, Settings("profile", step=0))
    lines = found.metrics[found.metrics["estimate"] == "climatology"]
    assert set(lines["reference"]) == {"long"}  # the others hold no day in three years
    assert lines["answered_by"].unique().tolist() == ["the reference in other years"]
    gaps = years.copy(deep=True)
    gaps["soil_moisture"][:, 300:] = np.nan
    assert Climatology.possible(gaps)
    lines = assess(estimates, {"gaps": gaps}, Settings("profile", step=0)).metrics
    reason = lines[lines["estimate"] == "climatology"]["reason"].item()
    assert reason == "no day of the calendar has a value in 3 years"


def test_what_answered_is_told_in_words(estimates):
    profile, a, b, _, mean = estimates
    assert a.answered_by(0.2, 0.2) == "10-40 cm"
    assert a.answered_by(0.0, 1.0) == "mean of 0-10, 10-40 and 40-100 cm"
    assert a.answered_by(0.05, 0.2) == "mean of 0-10 and 10-40 cm"
    assert b.answered_by(0.2, 0.2) == "0-100 cm"
    assert mean.answered_by(0.5, 0.5) == "a 40-100 cm; b 0-100 cm"
    assert profile.answered_by(0.2, 0.2) == "profile at 0.2 m"
    assert profile.answered_by(0.0, 0.05) == "profile, mean of 0 to 0.05 m"


def test_the_long_table_tells_what_answered(estimates, references):
    found = assess(estimates, references, SETTINGS).metrics
    told = found.groupby(["estimate", "group"])["answered_by"].unique()
    assert all(len(texts) == 1 for texts in told)
    assert told["a", "50 cm"] == ["40-100 cm"]
    assert told["late", "20 cm"] == ["0-100 cm"]


def test_the_span_of_kept_series_is_the_shortest_that_fits():
    assert step_for(10, 3653, 7) == 1
    assert step_for(9000, 3653, 7) == 5
    assert [step_for(n, 3653, 7) for n in (20_000, 60_000, 10**6)] == [10, 30, 0]
    chosen = [step_for(n, 3653, 7) or 99 for n in range(1000, 10**6, 5000)]
    assert chosen == sorted(chosen)
    for n in (4000, 9000, 30_000):
        n_spans = -(-3653 // step_for(n, 3653, 7)) + 1
        assert n * n_spans * 8 * 4 <= 256 * 2**20
    assert set(chosen) - {99} == set(STEPS)


def test_the_tables_keep_splits_apart_and_leave_out_what_is_empty(estimates, references, tmp_path):
    trained = references["stations"].isel(series=np.flatnonzero(references["stations"]["row"] < 12))
    trained = trained.assign_coords(split=("series", np.full(trained.sizes["series"], "train")))
    rest = references["stations"].isel(series=np.flatnonzero(references["stations"]["row"] > 11))
    found = assess(estimates, {"trained": trained, "rest": rest}, SETTINGS)
    tables = write_tables(str(tmp_path / "new"), found, min_cells=1)
    expected = {"metrics", "summary", "classes", "class_tests", "missing_metrics", "pairs",
                "pairs_summary", "intercomparison", "intercomparison_medians"}  # fmt: skip
    assert tables.keys() == expected
    assert {file.stem for file in (tmp_path / "new").iterdir()} == expected
    for stem in ("summary", "classes", "pairs_summary", "intercomparison_medians"):
        assert set(tables[stem]["split"]) == {"train", "validation"}, stem
    assert tables["summary"].query("reference == 'rest'")["n_cells"].max() == 3
    assert (
        tables["intercomparison_medians"].query("split == 'train'")["n_cells"].tolist() == [2] * 5
    )
    assert set(tables["classes"]["by"]) == {"cell_class", "network"}
    assert set(tables["class_tests"]["metric"]) == {"r", "ubrmse", "bias"}
    read = pd.read_csv(tmp_path / "new" / "metrics.csv")
    np.testing.assert_allclose(read["rmse"], found.metrics["rmse"])
    usual = tables_of(found)
    assert "class_tests" not in usual  # no class has 20 cells
    assert not usual["classes"]["used"].any()
    plain = assess(estimates, {"rest": rest}, Settings("profile", climatology=False))
    write_tables(str(tmp_path / "new"), plain)
    left = {file.stem for file in (tmp_path / "new").iterdir()}
    assert left == {"metrics", "summary", "classes", "missing_metrics"}


def test_settings_that_name_nothing_are_refused(estimates, references):
    cases = [
        (Settings("nobody"), "the subject 'nobody' is none of the estimates"),
        (
            Settings("profile", products=("a", "mean")),
            r"with \['mean'\]: the estimates with layers",
        ),
    ]
    for settings, message in cases:
        with pytest.raises(ValueError, match=message):
            assess(estimates, references, settings)
    climatology = Climatology.of(references["stations"])
    with pytest.raises(ValueError, match="set climatology to false"):
        assess([*estimates, climatology], references, Settings("profile"))
    empty = references["stations"].isel(time=slice(0, 0))
    with pytest.raises(ValueError, match="reference 'x' has no days"):
        assess(estimates, {"x": empty}, Settings("profile"))
    assert assess(estimates, {}, Settings("profile")).metrics.empty


def test_spans_of_different_lengths_are_not_merged(estimates, references):
    parts = [
        assess(estimates, references, Settings("profile", step=step, climatology=False))
        for step in (5, 10)
    ]
    with pytest.raises(ValueError, match=r"spans of \[5, 10\] days"):
        merge(parts)
