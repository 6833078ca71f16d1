"""DRAW as a classifier: our model less what its authors added, on a square grid."""

import pytest
import torch
from tolerances import assert_near

from ramlib.attention import Window
from ramlib.baselines.gregor import GregorConfig, SquareGrid
from ramlib.model import RecurrentAttentionModel

SMALL = {"glimpses": 3, "size": 4, "hidden": 8}
IMAGES = torch.rand(5, 1, 20, 20)


def moved():
    """A model whose policy has learnt something, so that its windows differ."""
    torch.manual_seed(0)
    model = GregorConfig(**SMALL).build((1, 20, 20), 10)
    torch.nn.init.normal_(model.f_ext.linear.weight)
    return model


def test_its_five_numbers_are_those_of_a_linear_map():
    square = SquareGrid(7).double()
    h = torch.rand(3, 7, dtype=torch.float64)
    numbers = h @ square.weight.T + square.bias
    assert_near(square(h), numbers[:, [0, 1, 2, 2, 3, 4]])


def test_every_window_is_square_and_they_differ():
    grids = moved()(IMAGES).grids
    assert torch.equal(grids.delta_x, grids.delta_y)
    assert grids.delta_x.std() > 0


def test_a_window_has_no_limits():
    model = moved()
    assert model.f_ext.support is None
    model.f_ext.linear.bias.data[2] = 3
    assert (model(IMAGES).grids.delta_x > model.f_ext.full_delta).any()


def test_begins_with_the_same_central_window_for_every_image():
    model = GregorConfig(**SMALL).build((1, 20, 20), 10)
    first = model(IMAGES).grids[:, 0]
    assert_near(first.c_x, torch.zeros(5))
    assert_near(first.delta_x, torch.full((5,), Window().start * model.f_ext.full_delta))


def test_is_our_model_without_context_and_with_one_layer_but_for_the_grid():
    """With its map written out to six rows, our model gives the same scores."""
    draw = moved()
    config = GregorConfig(**SMALL)
    ours = RecurrentAttentionModel(config, (1, 20, 20), 10)
    rows = torch.tensor([0, 1, 2, 2, 3, 4])
    state = {
        name: value[rows] if name.startswith("f_ext.linear") else value
        for name, value in draw.state_dict().items()
    }
    ours.load_state_dict(state)
    assert_near(draw(IMAGES).logits, ours(IMAGES).logits)
    assert ours.f_context is None
    assert (config.recurrence, config.context) == ("one-layer", False)


@pytest.mark.parametrize("glimpses", [4, 8])
def test_looks_as_often_as_it_is_told(glimpses):
    model = GregorConfig(**{**SMALL, "glimpses": glimpses}).build((1, 20, 20), 10)
    assert model(IMAGES).logits.shape == (5, glimpses, 10)
