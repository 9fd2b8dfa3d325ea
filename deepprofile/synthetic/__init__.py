"""The demo Earth: a seeded synthetic world, written as the agencies' own files, truth kept."""

from deepprofile.synthetic.config import EarthConfig, centred_window
from deepprofile.synthetic.earth import EarthFiles, write_earth
from deepprofile.synthetic.flaws import Flaws
from deepprofile.synthetic.truth import read_truth, truth_at, truth_layer

__all__ = [
    "EarthConfig",
    "EarthFiles",
    "Flaws",
    "centred_window",
    "read_truth",
    "truth_at",
    "truth_layer",
    "write_earth",
]
