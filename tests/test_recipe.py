"""Recipes: what is accepted, and how a wrong one is explained."""

import re
from datetime import date
from pathlib import Path
from typing import get_origin

import pytest
import yaml
from pydantic import BaseModel

from deepprofile.recipe import Recipe, RecipeError, load_recipe

REPOSITORY = Path(__file__).parent.parent
GOOD = {
    "name": "small",
    "root": "work",
    "period": {"start": "2015-03-31", "end": "2016-03-30"},
    "region": {"west": -10.0, "south": 36.0, "east": -6.0, "north": 40.0},
    "products": {name: {"url": "{root}/" + name} for name in ("smap_l4", "era5_land", "gldas")},
    "terrain": {"urls": ["{root}/dem.nc"]},
}


def write(folder: Path, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


@pytest.mark.parametrize("path", sorted((REPOSITORY / "pipelines").glob("*.yaml")), ids=str)
def test_committed_recipes_are_valid(path):
    assert load_recipe(path).name


def test_the_global_recipe_is_the_papers_configuration():
    """Every number that Zhu et al. (2026) print, as docs/science.md lists them."""
    recipe = load_recipe(REPOSITORY / "pipelines" / "global.yaml")
    assert (recipe.period.start, recipe.period.end) == (date(2015, 3, 31), date(2025, 2, 28))
    assert recipe.region is None
    assert recipe.synthetic is None
    assert recipe.collocation.products == ["smap_l4", "era5_land", "gldas"]
    assert recipe.collocation.scale == {"gldas": 0.4}
    assert not recipe.collocation.anomalies
    assert recipe.ground_truth.good_flags == ["G"]
    assert recipe.ground_truth.min_days == 180
    sample, training = recipe.sample, recipe.training
    assert sample.other_cells == 2500
    assert sample.other_outside is not None  # the contiguous United States
    assert (sample.split.train, sample.split.candidate) == (0.5, 0.3)
    assert (training.window, training.n_coefficients, training.smoothness) == (360, 10, 2e-4)
    assert (training.epochs, training.batch_size, training.learning_rate) == (50, 128, 1e-3)
    assert (training.average_last, training.samples_per_epoch) == (5, None)
    assert training.candidates == 0.0


def test_every_wrong_url_is_named_with_its_key_and_without_its_secret(tmp_path):
    wrong = {"smap_l4": {"url": "s3://key:secret@b/x"}, "era5_land": {"url": "s3://"}}
    urls = ["{root}/dem.nc", "s3://b/x?X-Amz-Signature=secret"]
    path = write(tmp_path, products={**GOOD["products"], **wrong}, terrain={"urls": urls})
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert "secret" not in text
    for part in (
        "products.smap_l4.url: s3://***@b/x: names credentials",
        "products.era5_land.url: s3:// names no bucket; expected s3://BUCKET",
        "terrain.urls[1]: s3://b/x?*** has a query string",
    ):
        assert part in text


def test_root_is_made_absolute_and_filled_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(write(tmp_path))
    assert recipe.root == str(tmp_path / "work")
    assert recipe.products["gldas"].url == f"{tmp_path}/work/gldas"
    assert recipe.terrain.urls == [f"{tmp_path}/work/dem.nc"]


@pytest.mark.parametrize("given", [None, "", " "])
def test_an_empty_root_is_no_root(tmp_path, given):
    """It would be the folder in which the command is started."""
    path = write(tmp_path, **({"root": ""} if given is None else {}))
    with pytest.raises(RecipeError, match=r"recipe\.yaml: root: is empty.*--root"):
        load_recipe(path, given)


def test_root_of_an_object_store_stays(tmp_path):
    assert load_recipe(write(tmp_path, root="s3://bucket/run")).products["smap_l4"].url == (
        "s3://bucket/run/smap_l4"
    )


def test_days_of_a_period_include_its_end(tmp_path):
    recipe = load_recipe(write(tmp_path))
    assert recipe.period.days == slice(0, (date(2016, 3, 30) - date(2015, 3, 31)).days + 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainin": {}}, ["trainin", "unknown key", "training"]),
        ({"training": {"epoch": 3}}, ["training.epoch", "unknown key", "epochs"]),
        ({"training": {"epochs": "ten"}}, ["training.epochs", "'ten'", "integer"]),
        ({"training": {"epochs": 3}}, ["training", "average_last 5 exceeds epochs 3"]),
        ({"period": {"end": "2016-02-30"}}, ["period.end", "2016-02-30"]),
        ({"period": {"end": 20160230}}, ["period.end", "20160230", "YYYY-MM-DD"]),
        ({"period": {"end": "2015-05-30"}}, ["61 days", "min_samples 100"]),
        ({"training": {"epochs": True}}, ["training.epochs", "True", "integer"]),
        ({"training": {"learning_rate": float("inf")}}, ["training.learning_rate", "finite"]),
        ({"training": {"window": 4}}, ["training.window", "40"]),
        ({"training": {"samples_per_epoch": 20}}, ["less than one batch of 128"]),
        ({"collocation": {"products": ["gldas", "gldas", "smap_l4"]}}, ["three different"]),
        ({"region": {"south": 86, "north": 89}}, ["grid"]),
        ({"terrain": {"urls": ["{rot}/dem.nc"]}}, ["{rot}", "{root}"]),
        ({"period": {"start": "2014-01-01", "end": "2016-01-01"}}, ["period", "2015-03-31"]),
        ({"period": {"end": "2015-03-30"}}, ["period", "before start"]),
        ({"region": {"west": 5, "east": 1}}, ["region", "west < east"]),
        ({"products": {"smap": {"url": "x"}}}, ["smap", "no reader", "smap_l4"]),
        ({"products": {"smap_l4": {"path": "x"}}}, ["products.smap_l4.path", "url"]),
        ({"sample": {"split": {"train": 0.7, "candidate": 0.3}}}, ["split", "below 1"]),
        ({"collocation": {"scale": {"merra": 1.0}}}, ["merra", "collocation.products"]),
        ({"evaluate": {"replicates": -1}}, ["evaluate.replicates", "-1", "0"]),
        ({"evaluate": {"level": 95}}, ["evaluate.level", "95", "less than 1"]),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path, changes, words):
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, **changes))
    for word in ["recipe.yaml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("end", ["2015-02-31", "2016-13-01", "tomorrow"])
def test_an_impossible_date_without_quotes_is_named(tmp_path, end):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("'2016-03-30'", end))
    with pytest.raises(RecipeError, match=rf"period\.end: .*{end}"):
        load_recipe(path)


def test_a_key_that_stands_twice_is_named(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "name: other\n")
    with pytest.raises(RecipeError, match="key 'name' stands twice"):
        load_recipe(path)


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: Türkei".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml: is not UTF-8"):
        load_recipe(path)


def test_a_missing_file_names_the_recipes_that_exist(tmp_path):
    write(tmp_path)
    (tmp_path / "slurm.yaml").write_text("# nodes\nkind: slurm\n")
    with pytest.raises(RecipeError, match=r"Recipes in .*: recipe\.yaml\.$"):
        load_recipe(tmp_path / "recipes.yaml")


@pytest.mark.parametrize(("device", "precision"), [("cpu", "tf32"), ("cuda", "bfloat16")])
def test_a_precision_that_the_device_never_has_is_refused(tmp_path, device, precision):
    path = write(tmp_path, predict={"device": device, "precision": precision})
    with pytest.raises(RecipeError, match=f"predict: precision {precision} is there on"):
        load_recipe(path)


def test_invalid_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("name: [unclosed")
    with pytest.raises(RecipeError, match=r"broken\.yaml: is not valid YAML: .* in line 1, column"):
        load_recipe(path)
    path.write_text("name: small\nfoo: SECRETXYZ: bar\n")
    with pytest.raises(RecipeError, match=r"mapping values .* in line 2, column 15") as caught:
        load_recipe(path)
    assert "SECRETXYZ" not in str(caught.value)


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        inner = [
            part
            for part in [field.annotation, *getattr(field.annotation, "__args__", ())]
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if inner and get_origin(field.annotation) is dict:
            keys |= keys_of(inner[0], f"{prefix}{name}.NAME.")
        elif inner and name != "other_outside":
            keys |= keys_of(inner[0], f"{prefix}{name}.")
        else:
            keys.add(prefix + name)
    return keys


def test_every_key_is_documented_and_no_other():
    text = (REPOSITORY / "docs" / "recipe.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = set(re.findall(r"`([^`]+)`", " ".join(rows)))
    assert documented == keys_of(Recipe)
