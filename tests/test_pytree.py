"""Dataclasses of tensors are flattened, changed and put together again."""

from dataclasses import dataclass

import pytest
import torch
from torch.utils import _pytree as pytree

from ramlib import _pytree
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Rollout


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    second: torch.Tensor | None = None


_pytree.register(Pair)


def test_what_is_not_there_is_no_leaf_and_comes_back_as_none():
    leaves, spec = pytree.tree_flatten(Pair(torch.ones(2)))
    assert [leaf.tolist() for leaf in leaves] == [[1, 1]]
    assert pytree.tree_unflatten(leaves, spec).second is None


def test_a_map_reaches_every_tensor_however_deep():
    grid = GlimpseGrid(*torch.arange(6.0).view(6, 1))
    rollout = Rollout(torch.zeros(1, 1, 3), grids=grid)
    moved = pytree.tree_map(lambda leaf: leaf + 1, {"seen": rollout})["seen"]
    assert moved.logits.tolist() == [[[1, 1, 1]]]
    assert moved.grids.gamma.tolist() == [6]
    assert moved.windows is None


def test_leaves_are_named_after_their_fields():
    paths, _ = pytree.tree_flatten_with_path(Pair(torch.ones(1), torch.ones(1)))
    assert [pytree.keystr(path) for path, _ in paths] == [".first", ".second"]


def test_leaves_need_not_be_tensors():
    _, spec = pytree.tree_flatten(GlimpseGrid(*torch.zeros(6, 1)))
    assert pytree.tree_unflatten(list("abcdef"), spec).sigma == "e"


def test_a_class_is_registered_once():
    with pytest.raises(ValueError, match="already"):
        _pytree.register(Pair)
