"""Loss landscapes and Hessian spectra of neural networks, with an error bar on every number."""

from landscape.checkpoints import load_checkpoint
from landscape.data import FrozenData, load_data
from landscape.density import hessian_trace, spectral_density
from landscape.directions import Plane, random_plane
from landscape.errors import UserError
from landscape.exchange import export_surface, import_surface
from landscape.measures import measure
from landscape.models import blocks, create_model, list_models
from landscape.objective import Objective
from landscape.spectrum import hessian_series, hessian_spectrum, hessian_top, summarize
from landscape.store import load, save
from landscape.surface import evaluate_surface
from landscape.training import train
from landscape.weights import save_checkpoint

__all__ = [
    "FrozenData",
    "Objective",
    "Plane",
    "UserError",
    "blocks",
    "create_model",
    "evaluate_surface",
    "export_surface",
    "hessian_series",
    "hessian_spectrum",
    "hessian_top",
    "hessian_trace",
    "import_surface",
    "list_models",
    "load",
    "load_checkpoint",
    "load_data",
    "measure",
    "random_plane",
    "save",
    "save_checkpoint",
    "spectral_density",
    "summarize",
    "train",
]
