"""Two estimates are compared on their common days, with limits from the same replicates."""

import numpy as np
import pandas as pd
import pytest
from evaluation_support import TIME, block_starts, column_estimate, memory_noise, reference_at

from deepprofile.evaluation.skill.pairs import paired, summarise_pairs
from deepprofile.evaluation.skill.uncertainty import draw

N_CELLS, N_DAYS = 5, 480


@pytest.fixture(scope="module")
def world():
    """A reference and three estimates: a good one, a slightly and a clearly worse one."""
    rng = np.random.default_rng(0)
    truth = 0.25 + 0.05 * memory_noise(rng, (N_CELLS, N_DAYS))
    shared = truth + 0.02 * memory_noise(rng, truth.shape)
    values = {
        "good": shared,
        "near": shared + rng.normal(0, 0.002, truth.shape),
        "poor": shared + 0.05 * memory_noise(rng, truth.shape),
    }
    values["near"][1, 100:160] = np.nan
    values["poor"][2, 20:] = np.nan
    values["poor"][3] = 0.3
    truth[4, 200:] = np.nan
    labels = ["dry", "dry", "wet", "wet", "wet"]
    reference = reference_at(0.5, truth, climate=labels)
    return reference, [column_estimate(name, v) for name, v in values.items()]


@pytest.fixture(scope="module")
def table(world):
    reference, estimates = world
    return paired(estimates, reference, name="x", subject="good", replicates=60, level=0.9)


def by_hand(reference, one, other, row, draws):
    """Differences of R and ubRMSE of each replicate by plain NumPy."""
    y = reference["soil_moisture"].values[row].astype("f8")
    a, b = one.soil_moisture[row, :, 0], other.soil_moisture[row, :, 0]
    known = np.isfinite(y) & np.isfinite(a) & np.isfinite(b)
    days = np.flatnonzero(known)
    found = []
    for firsts in [[days[0]], *block_starts(days[0], days[-1], draws)]:
        length = 60 if len(firsts) > 1 else N_DAYS
        chosen = np.concatenate([np.arange(f, min(f + length, N_DAYS)) for f in firsts])
        chosen = chosen[known[chosen]]
        r = [np.corrcoef(v[chosen], y[chosen])[0, 1] for v in (a, b)]
        ubrmse = [np.std(v[chosen] - y[chosen]) for v in (a, b)]
        found.append((r[0] - r[1], ubrmse[0] - ubrmse[1]))
    return known.sum(), np.array(found[0]), np.array(found[1:])


@pytest.mark.parametrize(("other", "row"), [("near", 0), ("near", 1), ("poor", 0), ("near", 3)])
def test_a_pair_equals_a_plain_loop_on_its_own_common_days(world, table, other, row):
    reference, estimates = world
    other_estimate = next(e for e in estimates if e.name == other)
    n, differences, replicates = by_hand(
        reference, estimates[0], other_estimate, row, draw(N_DAYS, 60)
    )
    line = table[(table["other"] == other) & (table["row"] == 10 + row)].iloc[0]
    assert line["n"] == n == (420 if (other, row) == ("near", 1) else 480)
    low, high = np.quantile(replicates, (0.05, 0.95), axis=0)
    for i, metric in enumerate(("r", "ubrmse")):
        found = line[f"{metric}_subject"] - line[f"{metric}_other"]
        assert found == pytest.approx(differences[i], abs=1e-12)
        assert line[f"{metric}_difference"] == pytest.approx(differences[i], abs=1e-12)
        assert line[f"{metric}_difference_low"] == pytest.approx(low[i], abs=1e-11)
        assert line[f"{metric}_difference_high"] == pytest.approx(high[i], abs=1e-11)


def test_verdicts_follow_from_the_limits_and_every_gap_has_a_reason(table):
    lines = table.set_index(["other", "row"])
    assert lines.loc[("poor", 10), "r_verdict"] == "better"
    assert lines.loc[("poor", 10), "ubrmse_verdict"] == "better"
    for metric, sign in (("r", 1), ("ubrmse", -1)):
        low, high = table[f"{metric}_difference_low"], table[f"{metric}_difference_high"]
        better = low > 0 if sign > 0 else high < 0
        worse = high < 0 if sign > 0 else low > 0
        expected = np.select([better, worse, low.notna()], ["better", "worse", "unclear"], "")
        assert (table[f"{metric}_verdict"] == expected).all()
    assert lines.loc[("poor", 12), "reason"] == "poor: 20 common days, 30 needed"
    assert lines.loc[("poor", 12), "n"] == 20
    assert lines.loc[("poor", 13), "reason"] == "constant: poor"
    assert lines.loc[("near", 14), "reason"] == ""
    told = "the common days span 200 days, 300 needed"
    assert lines.loc[("near", 14), "interval_reason"] == told
    assert (table["r_difference"].isna() == (table["reason"] != "")).all()
    no_limits = table["r_difference_low"].isna() | table["ubrmse_difference_low"].isna()
    assert (no_limits == (table["interval_reason"] != "")).all()


def test_swapping_the_two_turns_the_sign(world, table):
    reference, estimates = world
    options = {"name": "x", "replicates": 60, "level": 0.9, "batch": 2, "threads": 2}
    swapped = paired(estimates, reference, subject="poor", others=["good"], **options)
    straight = table[table["other"] == "poor"].reset_index(drop=True)
    for metric in ("r", "ubrmse"):
        change = swapped[f"{metric}_difference"]
        np.testing.assert_array_equal(change, -straight[f"{metric}_difference"])
        np.testing.assert_allclose(
            swapped[f"{metric}_difference_low"], -straight[f"{metric}_difference_high"], rtol=1e-9
        )
        turned = {"better": "worse", "worse": "better"}
        assert (swapped[f"{metric}_verdict"] == straight[f"{metric}_verdict"].replace(turned)).all()


def test_batches_and_threads_change_no_bit(world, table):
    reference, estimates = world
    options = {"name": "x", "subject": "good", "replicates": 60, "level": 0.9}
    other = paired(estimates, reference, batch=2, threads=2, **options)
    pd.testing.assert_frame_equal(table, other, check_exact=True)


def test_a_depth_that_the_subject_lacks_has_no_line(world):
    reference, estimates = world
    shallow = reference.assign_coords(top=("series", [1.5] * 5), bottom=("series", [1.5] * 5))
    assert paired(estimates, shallow, name="x", subject="good").empty


def test_names_are_checked(world):
    reference, estimates = world
    for subject, others in (("best", []), ("good", ["best"]), ("good", ["good"])):
        with pytest.raises(ValueError, match="expected two different names out of"):
            paired(estimates, reference, name="x", subject=subject, others=others)
    with pytest.raises(ValueError, match="expected two different names"):
        paired(estimates[:1], reference, name="x", subject="good")


def test_summary_of_pairs_by_hand(table):
    summary = summarise_pairs(table, by=("climate",), min_cells=2)
    lines = summary.set_index(["climate", "other"])
    assert lines.index.tolist() == [
        ("dry", "near"), ("dry", "poor"), ("wet", "near"), ("wet", "poor")
    ]  # fmt: skip
    wet = table[(table["climate"] == "wet") & (table["other"] == "poor")]
    assert lines.loc[("wet", "poor"), "n_cells"] == 1
    assert lines.loc[("wet", "poor"), "n_cells_without"] == 2
    assert lines.loc[("wet", "poor"), "few_cells"]
    assert lines.loc[("wet", "poor"), "r_difference"] == wet["r_difference"].median()
    dry = table[(table["climate"] == "dry") & (table["other"] == "poor")]
    assert lines.loc[("dry", "poor"), "r_better"] == (dry["r_verdict"] == "better").mean()
    assert lines.loc[("dry", "poor"), "r_cells_judged"] == 2
    # Cell 14 is too short for limits: it has a difference and no verdict.
    assert lines.loc[("wet", "near"), "n_cells"] == 3
    assert lines.loc[("wet", "near"), "ubrmse_cells_judged"] == 2


def test_two_equal_estimates_are_told_apart_in_few_cells():
    """At a level of 95 % each should win 2.5 % of cells; a short series allows some more."""
    rng = np.random.default_rng(1)
    truth = 0.25 + 0.05 * memory_noise(rng, (120, TIME.size), 5)
    one, two = truth + 0.03 * memory_noise(rng, (2, *truth.shape), 5)
    estimates = [column_estimate("one", one), column_estimate("two", two)]
    found = paired(estimates, reference_at(0.5, truth), name="x", subject="one", replicates=200)
    summary = summarise_pairs(found).iloc[0]
    assert summary["r_cells_judged"] == 120
    assert summary["r_better"] < 0.1 and summary["r_worse"] < 0.1
