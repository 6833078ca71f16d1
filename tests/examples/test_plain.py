"""The yardstick of `make bench` is a fair one: it computes what the model computes."""

from dataclasses import replace

import pytest
import torch
from plain import PlainRecurrentAttentionModel, read
from tolerances import assert_near

from ramlib import experiments
from ramlib.glimpse import GlimpseGrid, read_glimpse

RECIPE = experiments.get("digit-context")


@pytest.fixture
def twins():
    """The benchmark's model on smaller images, both ways, from the same weights."""
    config = replace(RECIPE.model, hidden=16, size=5)
    model = config.build((1, 30, 38), 10).double()
    torch.nn.init.normal_(model.f_ext.linear.weight, std=0.5)
    return model, PlainRecurrentAttentionModel(model)


def test_sees_the_same_glimpse():
    images = torch.rand(3, 2, 14, 17, dtype=torch.float64)
    one = torch.ones(3, dtype=torch.float64)
    grid = GlimpseGrid(0.3 * one, -0.9 * one, 1.5 * one, 0.7 * one, 0.6 * one, 1.2 * one)
    assert_near(read(images, grid, 4), read_glimpse(images, grid, 4))


def test_computes_the_same_logits_from_the_same_weights(twins):
    images = torch.rand(4, 1, 30, 38, dtype=torch.float64)
    ours, plain = (model(images) for model in twins)
    for name in ("c_x", "delta_y", "sigma", "gamma"):
        assert_near(getattr(plain.grids, name), getattr(ours.grids, name))
    assert_near(plain.shifts, ours.shifts)
    assert_near(plain.glimpses, ours.glimpses)
    assert_near(plain.logits, ours.logits)


def test_learns_in_the_same_direction(twins):
    images, labels = torch.rand(4, 1, 30, 38, dtype=torch.float64), torch.arange(4)
    slopes = []
    for model in twins:
        twins[0].loss(model(images), labels).backward()
        parts = (model.f_context, model.f_glimpse, model.f_ext, model.f_class)
        slopes.append([p.grad for part in parts for p in part.parameters()])
    for ours, plain in zip(*slopes, strict=True):
        assert_near(plain, ours)


def test_has_as_many_weights(twins):
    """But for a bias that joined inputs do not need: both count it once."""
    ours, plain = (sum(p.numel() for p in model.parameters()) for model in twins)
    assert plain == ours
