"""Sources of soil moisture and forcing: granules in, daily fields on the 9 km grid out."""

from deepprofile.products.base import (
    DailyFields,
    Field,
    Granule,
    GranuleError,
    MissingVariableError,
    SetAside,
)
from deepprofile.products.era5_land import Era5Land
from deepprofile.products.gldas import Gldas
from deepprofile.products.product import Product
from deepprofile.products.smap_l4 import SmapL4

PRODUCTS: dict[str, Product] = {
    product.name: product for product in (SmapL4(), Era5Land(), Gldas())
}
"""The products by name."""

__all__ = [
    "PRODUCTS",
    "DailyFields",
    "Era5Land",
    "Field",
    "Gldas",
    "Granule",
    "GranuleError",
    "MissingVariableError",
    "Product",
    "SetAside",
    "SmapL4",
]
