"""What `deepprofile inspect` shows of a model's folder."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from deepprofile import cli
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.describe import render_model
from deepprofile.model.io import save_model
from deepprofile.model.network import DeepProfile
from deepprofile.profile import Layer

METADATA = {
    "training_samples": 12345,
    "recipe": {"name": "small", "training": {"smoothness": 0.0002}, "stations": None},
    "data": {"data.series": "0123abcd"},
    "versions": {"zarr": "3.1.6"},
    "metrics": {"validation": {"root": 0.25}},
    "cells_without_samples": [{"row": 1}, {"row": 2}],
}


@pytest.fixture
def folder(tmp_path):
    config = NetworkConfig(
        n_variables=2,
        n_auxiliary=1,
        window=40,
        variables=("rain", "surface_temp"),
        features=("elevation",),
        variable_units=("kg m-2 s-1", "K"),
        feature_units=("m",),
        layers=(Layer("smap_l4", 0.0, 0.05), Layer("gldas", 0.4, 1.0)),
    )
    model = DeepProfile.from_config(config)
    series = torch.tensor([0.0, 230.5]), torch.tensor([0.001, 320.25])
    model.set_limits(series, (torch.tensor([-12.0]), torch.tensor([4321.0])))
    url = str(tmp_path / "model")
    return url, model, save_model(model, url, METADATA)


def shown(url: str) -> str:
    console = Console(width=400, record=True, file=StringIO())
    console.print(render_model(url))
    return console.export_text()


def test_everything_that_travels_with_a_model_is_shown(folder):
    url, model, fingerprint = folder
    text = shown(url)
    lines = {tuple(line.split()) for line in text.splitlines()}
    assert fingerprint in text
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in text
    assert "window 40 days, 10 coefficients" in text
    assert "smap_l4 0-5 cm, gldas 40-100 cm" in text
    assert ("surface_temp", "K", "230.5", "320.25") in lines
    assert ("elevation", "m", "-12", "4321") in lines
    assert ("training", "samples", "12,345") in lines
    assert ("training.smoothness", "0.0002") in lines
    assert ("data.series", "0123abcd") in lines
    assert ("zarr", "3.1.6") in lines
    assert ("validation.root", "0.25") in lines
    assert ("cells", "without", "samples", "2") in lines


def test_the_command_knows_a_model_from_a_cube(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["deepprofile", "inspect", folder[0]])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert folder[2] in capsys.readouterr().out


def test_a_model_that_was_changed_is_one_clear_message(folder, monkeypatch, capsys):
    path = Path(folder[0]) / "model.json"
    content = json.loads(path.read_text())
    content["network"]["window"] = 80
    path.write_text(json.dumps(content))
    monkeypatch.setattr("sys.argv", ["deepprofile", "inspect", folder[0]])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "fit the network" in capsys.readouterr().err.replace("\n", " ")
