"""Static classes: texture triangle, classes of stations from their archive, classes of cells."""

import numpy as np
import pandas as pd
import pytest
from station_support import SensorFile, daily, records, write_folder, write_zip

from deepprofile.evaluation.reference.ground_truth import ground_truth
from deepprofile.evaluation.reference.series import cell_table
from deepprofile.evaluation.stations import cell_labels, merge_records, read_archive, usda_texture

CLIMATES = {"A": "Cfa", "B": "Csa", "C": "Cfa"}
HEAD = (
    "quantity_name;unit;depth_from[m];depth_to[m];value;description;quantity_source_name;"
    "quantity_source_description;quantity_source_provider;quantity_source_version;"
    "quantity_source_resolution;quantity_source_timerange;quantity_source_url;\n"
)
TRIANGLE = {  # the corners and middles of the triangle's fields, (clay, sand) in %
    "sand": (3, 92),
    "loamy sand": (6, 82),
    "sandy loam": (10, 65),
    "loam": (18, 41),
    "silt loam": (15, 20),
    "silt": (6, 6),
    "sandy clay loam": (27, 58),
    "clay loam": (34, 33),
    "silty clay loam": (34, 10),
    "sandy clay": (42, 52),
    "silty clay": (47, 7),
    "clay": (60, 20),
}


@pytest.mark.parametrize("name", TRIANGLE)
def test_texture_at_known_points(name):
    assert usda_texture(*TRIANGLE[name]) == name


@pytest.mark.parametrize(
    ("clay", "sand", "name"),
    [
        (0, 100, "sand"),
        (100, 0, "clay"),
        (0, 0, "silt"),
        (20, 60, "sandy clay loam"),  # 20 % clay is no longer sandy loam
        (27, 46, "sandy clay loam"),
        (27, 45, "clay loam"),
        (27, 20, "silty clay loam"),
        (40, 45, "clay"),
        (40, 46, "sandy clay"),
        (40, 20, "silty clay"),
        (12, 8, "silt loam"),
        (7, 52, "loam"),
        (7, 53, "sandy loam"),
        (np.nan, 20, ""),
        (60, 60, ""),
        (-1, 20, ""),
    ],
)
def test_texture_at_borders_and_of_nothing(clay, sand, name):
    assert usda_texture(clay, sand) == name


def test_every_point_of_the_triangle_has_the_class_of_the_handbooks_rules():
    """The twelve rules as the handbook prints them: each point satisfies exactly one."""
    clay, sand = np.meshgrid(np.arange(0, 101, 0.5), np.arange(0, 101, 0.5))
    inside = clay + sand <= 100
    c, s = clay[inside], sand[inside]
    silt = 100 - c - s
    rules = {
        "sand": silt + 1.5 * c < 15,
        "loamy sand": (silt + 1.5 * c >= 15) & (silt + 2 * c < 30),
        "sandy loam": ((c >= 7) & (c < 20) & (s > 52) & (silt + 2 * c >= 30))
        | ((c < 7) & (silt < 50) & (silt + 2 * c >= 30)),
        "loam": (c >= 7) & (c < 27) & (silt >= 28) & (silt < 50) & (s <= 52),
        "silt loam": ((silt >= 50) & (c >= 12) & (c < 27))
        | ((silt >= 50) & (silt < 80) & (c < 12)),
        "silt": (silt >= 80) & (c < 12),
        "sandy clay loam": (c >= 20) & (c < 35) & (silt < 28) & (s > 45),
        "clay loam": (c >= 27) & (c < 40) & (s > 20) & (s <= 45),
        "silty clay loam": (c >= 27) & (c < 40) & (s <= 20),
        "sandy clay": (c >= 35) & (s > 45),
        "silty clay": (c >= 40) & (silt >= 40),
        "clay": (c >= 40) & (s <= 45) & (silt < 40),
    }
    assert (np.sum(list(rules.values()), axis=0) == 1).all()
    found = usda_texture(c, s)
    for name, rule in rules.items():
        np.testing.assert_array_equal(found == name, rule)


def static(
    fractions=((24, 47, 29), (40, 40, 20)), land_cover=(("2005", 61), ("2010", 130)), climate="Cfa"
) -> str:
    """Static variables of a station: clay, sand, silt of two layers, map years and codes."""
    lines = []
    for (top, bottom), shares in zip((("0.00", "0.30"), ("0.30", "1.00")), fractions, strict=False):
        names = zip(("clay", "sand", "silt"), shares, strict=True)
        lines += [f"{name} fraction;% weight;{top};{bottom};{x};;HWSD;" for name, x in names]
    lines += [
        f"land cover classification;;;;{code};words;CCI_landcover_{year};"
        for year, code in land_cover
    ]
    lines.append(f"climate classification;;;;{climate};words;koeppen_geiger_2007;")
    lines.append("climate classification;;;;ET;words;koeppen_geiger_2017;")
    return HEAD + "\n".join(line + ";" * (13 - line.count(";")) for line in lines) + "\n"


def archive(folder, texts: dict[str, str], zipped: bool = False):
    """Stations with a sensor at two depths each, and the static variables given."""
    sensors = [
        SensorFile(daily(3), station=name, depth=z, step="D") for name in texts for z in (0.05, 0.2)
    ]
    path = write_zip(folder / "a.zip", sensors) if zipped else write_folder(folder / "a", sensors)
    for name, text in texts.items():
        member = f"NET/{name}/NET_NET_{name}_static_variables.csv"
        if zipped:
            import zipfile

            with zipfile.ZipFile(path, "a") as file:
                file.writestr(member, text)
        elif text:
            (path / member).write_text(text)
    return path


@pytest.mark.parametrize("zipped", [False, True])
def test_classes_come_from_the_archives_static_variables(tmp_path, zipped):
    found = read_archive(archive(tmp_path, {"A": static()}, zipped))
    labels = found.sensors[["land_cover", "climate", "texture"]].drop_duplicates()
    assert labels.to_numpy().tolist() == [["Grassland", "Cfa", "loam"]]
    assert found.notes == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"land_cover": [("2000", 61)]},
            "Tree cover, broadleaved, deciduous, Closed to open (>15%)",
        ),
        ({"land_cover": [("2010", 11)]}, "Cropland, rainfed"),
        ({"land_cover": [("2010", 999)]}, ""),
        ({"land_cover": []}, ""),
        ({"climate": "unheard"}, "climate"),
        ({"fractions": ((50, 20, 10),)}, "texture"),
        ({"fractions": ()}, "texture"),
    ],
)
def test_odd_static_variables(tmp_path, options, expected):
    line = read_archive(archive(tmp_path, {"A": static(**options)})).sensors.iloc[0]
    if expected in line:
        assert line[expected] == "" and line["land_cover"] == "Grassland"
    else:
        assert line["land_cover"] == expected and line["climate"] == "Cfa"


def test_static_variables_that_cannot_be_read_are_said_once(tmp_path):
    texts = {"A": "nonsense", "B": "\xff;\n" * 9, "C": ""}
    path = archive(tmp_path, texts)
    found = read_archive(path)
    assert len(found.sensors) == 6 and found.rejected == []
    assert set(found.sensors["land_cover"]) == {""}
    assert [note.split(":")[0] for note in found.notes] == [
        f"NET/{name}/NET_NET_{name}_static_variables.csv" for name in "AB"
    ]
    assert all("are unknown" in note for note in found.notes)
    assert merge_records([found, found]).notes[:2] == found.notes


def test_a_cell_has_the_class_of_most_of_its_stations():
    classes = [("S1", "x", "a"), ("S2", "x", "b"), ("S3", "y", ""), ("S3", "y", "")]
    sensors = pd.DataFrame(classes, columns=["station", "land_cover", "climate"])
    sensors = sensors.assign(network="NET", row=1, column=2)
    assert cell_labels(sensors).to_numpy().tolist() == [[1, 2, "x", "mixed", ""]]
    assert list(cell_labels(sensors).columns) == [
        "row",
        "column",
        "land_cover",
        "climate",
        "texture",
    ]
    assert cell_labels(sensors.iloc[:0]).empty


def test_classes_stand_along_the_series_of_the_reference(tmp_path):
    texts = {name: static(climate=climate) for name, climate in CLIMATES.items()}
    reference = ground_truth(read_archive(archive(tmp_path, texts)), min_days=1)
    assert set(reference["climate"].to_numpy()) == {"Cfa"}
    assert set(reference["texture"].to_numpy()) == {"loam"}
    table = cell_table(reference)
    assert table[["land_cover", "climate", "texture"]].to_numpy().tolist() == [
        ["Grassland", "Cfa", "loam"]
    ]


def test_classes_of_records_without_any_are_empty():
    reference = ground_truth(records([{"station": "A", "depth": 0.2, "values": 0.1}], 200))
    assert set(reference["land_cover"].to_numpy()) == {""}
