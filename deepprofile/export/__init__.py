"""Export: layer means of a cube of coefficients as CF netCDF or cloud-optimised GeoTIFF."""

from deepprofile.export.files import Form
from deepprofile.export.request import ExportError, Request, layer_of
from deepprofile.export.run import Exported, export_layers

__all__ = ["ExportError", "Exported", "Form", "Request", "export_layers", "layer_of"]
