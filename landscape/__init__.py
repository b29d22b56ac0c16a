"""Loss landscapes and Hessian spectra of neural networks, with an error bar on every number."""

from landscape.analyses.density import spectral_density
from landscape.analyses.series import hessian_series
from landscape.analyses.spectrum import hessian_spectrum
from landscape.analyses.summaries import summarize
from landscape.analyses.surface import evaluate_surface
from landscape.analyses.top import hessian_top
from landscape.analyses.trace import hessian_trace
from landscape.checkpoints.load import load_checkpoint
from landscape.checkpoints.read import save_checkpoint
from landscape.data.frozen import FrozenData, load_data
from landscape.models import blocks, create_model, list_models
from landscape.objective.objective import Objective
from landscape.objective.task import Classification, Task
from landscape.planes.plane import Plane
from landscape.planes.random import random_plane
from landscape.runtime.errors import UserError
from landscape.store.file import load, save
from landscape.surfaces.exports import export_surface
from landscape.surfaces.imports import import_surface
from landscape.surfaces.measures import measure
from landscape.training.train import train

__version__ = "0.2.0.dev0"

__all__ = [
    "Classification",
    "FrozenData",
    "Objective",
    "Plane",
    "Task",
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
