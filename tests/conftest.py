"""What all tests share: shapes are checked, numbers repeat."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import jaxtyping

# Before anything imports ramlib: each call then checks the annotated shapes and types. Compilers
# cannot look through these checks; see test_export.py.
if "RAMLIB_UNCHECKED" not in os.environ:
    jaxtyping.install_import_hook("ramlib", "beartype.beartype")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The same examples on every run, and no deadline: the machine may be busy.
settings.register_profile("ramlib", deadline=None, derandomize=True)
settings.load_profile("ramlib")


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    torch.manual_seed(0)


@pytest.fixture
def as_installed(monkeypatch):
    """Call the package as a reader does, without the hook: its own errors must catch bad input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
