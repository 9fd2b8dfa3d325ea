"""A small model, and forcing and auxiliary features for it."""

import numpy as np
import pandas as pd
import torch
import xarray as xr

from deepprofile.model.network import DeepProfile
from deepprofile.profile import Layer

WINDOW = 20
N_DAYS = 70


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    settings = {
        "n_variables": 3,
        "n_auxiliary": 2,
        "window": WINDOW,
        "filters": (6, 4),
        "pooling": (2, 5),
        "width": 16,
        "head_width": 8,
        "variables": ("rain", "heat", "snow"),
        "features": ("elevation", "slope"),
        "layers": (Layer("smap_l4", 0.0, 0.05),),
        **options,
    }
    model = DeepProfile(**settings)
    for name, buffer in model.named_buffers():
        if "running_mean" in name:
            buffer.uniform_(-0.5, 0.5)
    model.series_maximum.mul_(3)
    return model.eval()


def make_forcing(n_rows=4, n_columns=5, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N_DAYS, 3, n_rows, n_columns)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("time", "variable", "y", "x"),
        coords={
            "time": pd.date_range("2020-01-01", periods=N_DAYS),
            "variable": ["rain", "heat", "snow"],
            "y": np.arange(n_rows) * -9.0,
            "x": np.arange(n_columns) * 9.0,
            "latitude": ("y", np.arange(n_rows) * -0.1),
        },
    )


def make_auxiliary(n_rows=4, n_columns=5):
    values = np.random.default_rng(9).normal(size=(2, n_rows, n_columns)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("feature", "y", "x"),
        coords={
            "feature": ["elevation", "slope"],
            "y": np.arange(n_rows) * -9.0,
            "x": np.arange(n_columns) * 9.0,
        },
    )
