"""Recurrent attention models that learn where to look, after Semeniuta & Barth (2016)."""

from ramlib.experiments import RECIPES
from ramlib.experiments.recipe import Recipe
from ramlib.experiments.weights import load, shipped
from ramlib.glimpse import GlimpseGrid, gaussian_filterbank, read_glimpse
from ramlib.interface import Classifier, Rollout
from ramlib.model import RAMConfig, RecurrentAttentionModel

__all__ = [
    "RECIPES",
    "Classifier",
    "GlimpseGrid",
    "RAMConfig",
    "Recipe",
    "RecurrentAttentionModel",
    "Rollout",
    "gaussian_filterbank",
    "load",
    "read_glimpse",
    "shipped",
]
__version__ = "0.1.0"
