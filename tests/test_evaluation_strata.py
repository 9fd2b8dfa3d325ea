"""Classes of cells are counted, summarised and compared; small ones are named and left out."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deepprofile.evaluation.skill.strata import CONSTANT, class_sizes, compare_classes
from deepprofile.evaluation.skill.summaries import missing_metrics, summarise, summarise_classes


def cells(n=90, seed=0):
    """A long table of one estimate and depth: 40 cells of crops, 30 of grass, 15 of forest."""
    rng = np.random.default_rng(seed)
    cover = np.repeat(["crops", "grass", "forest", ""], [40, 30, n - 75, 5]).astype(object)
    cover[-2:] = None
    r = rng.normal(0.7, 0.1, n) + np.where(cover == "grass", 0.2, 0.0)
    table = pd.DataFrame({"estimate": "a", "group": "50 cm", "row": range(n), "column": 3})
    return table.assign(reference="stations", land_cover=cover, r=r, bias=r - 1, rmse=0.1)


def test_classes_are_compared_by_students_t_test_and_corrected_for_their_number():
    table = cells()
    found = compare_classes(table, ["land_cover"], ["r", "bias"])
    assert [tuple(line) for line in found[["metric", "class_a", "class_b"]].to_numpy()] == [
        ("r", "crops", "grass"),
        ("bias", "crops", "grass"),
    ]
    one, other = (table["r"][table["land_cover"] == name] for name in ("crops", "grass"))
    expected = stats.ttest_ind(one, other, equal_var=True)
    assert found["p"][0] == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found["n_a"][0], found["n_b"][0]) == (40, 30)
    assert found["mean_b"][0] == pytest.approx(other.mean())
    assert (found["reason"] == "").all()


def test_p_values_are_corrected_over_all_tests_together():
    parts = [cells(seed=i).assign(group=f"{i}") for i in range(6)]
    table = pd.concat(parts, ignore_index=True)
    table["r"] -= np.where(table["land_cover"] == "grass", 0.16, 0.0)
    found = compare_classes(table, ["land_cover"], ["r"])
    assert len(found) == 6
    p = np.sort(found["p"])
    by_hand = np.minimum.accumulate((p * 6 / np.arange(1, 7))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(found["p_adjusted"]), by_hand)


def test_a_cell_counts_once_with_the_mean_of_its_series():
    table = cells()
    other = table.assign(r=table["r"] + 0.1)
    found = compare_classes(pd.concat([table, other], ignore_index=True), ["land_cover"], ["r"])
    once = compare_classes(table, ["land_cover"], ["r"])
    assert found["n_a"].item() == 40
    assert found["p"].item() == pytest.approx(once["p"].item())
    assert found["mean_a"].item() == pytest.approx(once["mean_a"].item() + 0.05)


def test_small_and_unknown_classes_are_named_and_left_out():
    sizes = class_sizes(pd.concat([cells(), cells(seed=1)]), "land_cover").set_index("class")
    assert sizes["n_cells"].to_dict() == {"crops": 40, "forest": 15, "grass": 30, "unknown": 5}
    assert sizes.index[sizes["used"]].tolist() == ["crops", "grass"]
    assert sizes.loc["forest", "reason"] == "fewer than 20 cells"
    assert sizes.loc["unknown", "reason"] == "no class is known"
    assert compare_classes(cells().head(45), ["land_cover"], ["r"]).empty


def test_classes_that_do_not_vary_or_have_one_cell_have_no_p_value_but_a_reason():
    table = cells()
    table["r"] = 0.5
    found = compare_classes(table, ["land_cover"], ["r"])
    assert np.isnan(found["p"].item()) and np.isnan(found["p_adjusted"].item())
    assert found["reason"].item() == CONSTANT
    single = compare_classes(cells().loc[[0, 50, 51]], ["land_cover"], ["r"], min_cells=1)
    assert single["reason"].item() == "a class has a single cell"
    assert np.isnan(single["p"].item())


def test_every_class_is_summarised_and_small_ones_are_marked():
    table = cells().assign(climate="dry")
    found = summarise_classes(table, ["land_cover", "climate"])
    assert found["by"].tolist() == ["land_cover"] * 4 + ["climate"]
    lines = found.set_index("class")
    assert lines["n_cells"].to_dict() == {
        "crops": 40, "forest": 15, "grass": 30, "unknown": 5, "dry": 90
    }  # fmt: skip
    assert lines.index[lines["used"]].tolist() == ["crops", "grass", "dry"]
    for name in ("crops", "forest"):
        values = table["r"][table["land_cover"] == name]
        assert lines.loc[name, "r"] == pytest.approx(values.median())
        assert lines.loc[name, "r_q25"] == pytest.approx(values.quantile(0.25))
    assert lines.loc["dry", "bias"] == pytest.approx(table["bias"].median())


def test_a_class_that_the_reference_lacks_is_named():
    with pytest.raises(ValueError, match=r"lacks the columns \['texture'\]"):
        summarise(cells(), by=("reference", "texture"))
    with pytest.raises(ValueError, match=r"lacks the columns \['texture'\]"):
        summarise_classes(cells(), ["texture"])
    assert summarise_classes(cells(), []).empty


def test_reasons_are_counted_without_the_numbers_of_each_series():
    reasons = [
        *("12 common days, 30 needed", "7 common days, 30 needed; the estimate is constant", ""),
        *("5 common days, 30 needed", None),
        "left out: 3 common days with the other estimates, 30 needed",
        *(f"left out: it would leave the others {n} of 800 common days" for n in (40, 50, 60)),
    ]
    table = pd.DataFrame({"reference": "x", "estimate": "a", "group": "50 cm", "reason": reasons})
    found = missing_metrics(table)
    assert dict(zip(found["reason"], found["n_series"], strict=True)) == {
        "left out: it would leave the others too few common days": 3,
        "fewer than 30 common days": 2,
        "fewer than 30 common days; the estimate is constant": 1,
        "left out: too few common days with the other estimates, 30 needed": 1,
    }
    assert found["n_series"].is_monotonic_decreasing
