"""Recurrent attention models that learn where to look, after Semeniuta & Barth (2016)."""

from importlib import import_module
from typing import Any

from ramlib.device import best_device
from ramlib.glimpse import GlimpseGrid, gaussian_filterbank, read_glimpse
from ramlib.interface import Classifier, Rollout
from ramlib.model import RAMConfig, RecurrentAttentionModel

# The laboratory needs more than the core, and comes when it is asked for.
_LATER = {
    "RECIPES": "ramlib.experiments",
    "Recipe": "ramlib.experiments.recipe",
    "load": "ramlib.experiments.weights",
    "shipped": "ramlib.experiments.weights",
}

__all__ = [
    "RECIPES",
    "Classifier",
    "GlimpseGrid",
    "RAMConfig",
    "Recipe",
    "RecurrentAttentionModel",
    "Rollout",
    "best_device",
    "gaussian_filterbank",
    "load",
    "read_glimpse",
    "shipped",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
