"""The DeepProfile network: training, models on disk, prediction."""

from deepprofile.model.io import load_model, save_model
from deepprofile.model.labelled import predict
from deepprofile.model.network import DeepProfile
from deepprofile.model.sliding import sliding_coefficients

__all__ = ["DeepProfile", "load_model", "predict", "save_model", "sliding_coefficients"]
