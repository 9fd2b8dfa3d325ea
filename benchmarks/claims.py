"""What the demo must show, checked on its table of metrics: ``python benchmarks/claims.py [ROOT]``.

Prints every claim with the values behind it, over the validation cells, and once more with the
square of independent errors (never trained on) counted as validation cells.
"""

import argparse
from pathlib import Path

import pandas as pd

from deepprofile.synthetic import read_truth

PRODUCTS = ["smap_l4", "era5_land", "gldas"]
MEANS = ["mean", "tc_mean"]


def medians(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Median R and ubRMSE of each estimate in a depth group."""
    chosen = table[table["group"] == group]
    return chosen.groupby("estimate")[["r", "ubrmse"]].median()


def claims(table: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Name of each claim, the value found and the least that it must be."""
    column, surface = medians(table, "0-100 cm"), medians(table, "0-5 cm")
    r, top = column.loc["deepprofile", "r"], surface.loc["deepprofile", "r"]
    spread = column["ubrmse"]
    return [
        ("0-100 cm: R against the best product + 0.03", r, column.loc[PRODUCTS, "r"].max() + 0.03),
        ("0-100 cm: R against the plain mean - 0.005", r, column.loc["mean", "r"] - 0.005),
        ("0-100 cm: R against the TC-weighted mean - 0.005", r, column.loc["tc_mean", "r"] - 0.005),
        (
            "0-100 cm: -ubRMSE against every product",
            -spread["deepprofile"],
            -spread[PRODUCTS].min(),
        ),
        ("0-5 cm: R against SMAP L4 - 0.01", top, surface.loc["smap_l4", "r"] - 0.01),
        ("0-5 cm: R against both means", top, surface.loc[MEANS, "r"].max()),
    ]


def show(title: str, table: pd.DataFrame) -> None:
    """Print the claims for some cells."""
    n_cells = len(table[["row", "column"]].drop_duplicates())
    print(f"{title}, {n_cells} cells")
    for name, found, least in claims(table):
        print(f"  {'holds ' if found >= least else 'FAILS '} {name}: {found:.4f}, {least:.4f}")


def main() -> None:
    """Read the table of a root and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path("demo"))
    root = parser.parse_args().root
    table = pd.read_csv(root / "report" / "metrics.csv")
    table = table[table["reference"] == "truth"]
    truth = read_truth(root / "earth" / "truth.nc")
    cells = truth[["row", "column", "independent"]].to_dataframe()[["row", "column", "independent"]]
    table = table.merge(cells, on=["row", "column"])
    held = table["split"] == "validation"
    show("validation cells", table[held])
    show("with the square of independent errors", table[held | table["independent"]])
    training = medians(table[table["split"] == "train"], "0-100 cm").loc["deepprofile", "r"]
    loss = training - medians(table[held], "0-100 cm").loc["deepprofile", "r"]
    print(f"held-out cells below training cells, 0-100 cm: {loss:.4f}, at most 0.02")


if __name__ == "__main__":
    main()
