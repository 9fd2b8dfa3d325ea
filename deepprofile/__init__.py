"""DeepProfile: root-zone soil moisture profiles by inverse fusion of SMAP L4, ERA5-Land, GLDAS.

``import deepprofile as dp`` gives the public face; names are loaded when they are first used, so
that reading a cube does not need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import deepprofile.profile  # noqa: F401  (registers the .profile accessor)

if TYPE_CHECKING:
    from deepprofile.cluster import connect
    from deepprofile.collocation import triple_collocation
    from deepprofile.grid import ease2_grid
    from deepprofile.model.io import load_model, save_model
    from deepprofile.model.labelled import predict
    from deepprofile.model.network import DeepProfile
    from deepprofile.model.sliding import sliding_coefficients
    from deepprofile.store import open_cube

__version__ = "0.1.0"

_HOMES = {
    "DeepProfile": "deepprofile.model.network",
    "connect": "deepprofile.cluster",
    "ease2_grid": "deepprofile.grid",
    "load_model": "deepprofile.model.io",
    "open_cube": "deepprofile.store",
    "predict": "deepprofile.model.labelled",
    "save_model": "deepprofile.model.io",
    "sliding_coefficients": "deepprofile.model.sliding",
    "triple_collocation": "deepprofile.collocation",
}

__all__ = [
    "DeepProfile",
    "connect",
    "ease2_grid",
    "load_model",
    "open_cube",
    "predict",
    "save_model",
    "sliding_coefficients",
    "triple_collocation",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deepprofile' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
