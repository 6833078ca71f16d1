"""Recurrent attention models that learn where to look, after Semeniuta & Barth (2016)."""

from ramlib.glimpse import GlimpseGrid, gaussian_filterbank, read_glimpse
from ramlib.interface import Classifier, Rollout
from ramlib.model import RAMConfig, RecurrentAttentionModel
from ramlib.pretrained import load, shipped
from ramlib.recipes import RECIPES, Recipe

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
