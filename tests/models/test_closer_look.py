"""A closer look is an ordinary glimpse of a finer grid, and words for what it shows."""

import pytest
import torch
from tolerances import assert_near

from ramlib.attention import Window
from ramlib.glimpse import GlimpseGrid, read_glimpse
from ramlib.model import RAMConfig
from ramlib.models.inhibition import CloserLook

READER = RAMConfig(glimpses=2, size=4, hidden=8, shrink=4, window=Window(0.5, 0.3, 0.9))
IMAGES = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))


def last_look():
    torch.manual_seed(0)
    return READER.build((1, 40, 40), 10).looks(IMAGES)[-1]


def closer_look(**options):
    torch.manual_seed(1)
    return CloserLook((1, 40, 40), 6, READER.hidden, 65, **options)


def test_looks_where_the_read_ended_through_a_window_of_its_own():
    last = last_look().grid
    grid = closer_look(side=0.25).grid(last)
    assert torch.equal(grid.c_x, last.c_x)
    assert torch.equal(grid.c_y, last.c_y)
    # Six filters over a quarter of 39 pixels.
    assert_near(grid.delta_x, torch.full((3,), 39 / 4 / 5), torch.float32)
    assert_near(grid.sigma, grid.delta_y / 2, torch.float32)
    assert grid.gamma.tolist() == [1, 1, 1]


def test_scores_words_by_the_memory_and_by_what_it_sees():
    look, closer = last_look(), closer_look()
    delta = torch.full((3,), 0.4 * 39 / 5)
    grid = GlimpseGrid(look.grid.c_x, look.grid.c_y, delta, delta, delta / 2, torch.ones(3))
    glimpse = read_glimpse(IMAGES, grid, 6)
    expected = closer.f_class(torch.cat([look.state.h1, closer.f_glimpse(glimpse)], -1))
    scores = closer(IMAGES, look)
    assert scores.shape == (3, 65)
    assert_near(scores, expected, atol=1e-4, rtol=0)  # the support cuts the filters' tails


def test_gradient_reaches_the_last_window_and_the_memory():
    look, closer = last_look(), closer_look()
    c_x, memory = torch.autograd.grad(
        closer(IMAGES, look)[:, 3].sum(), (look.grid.c_x, look.state.h1)
    )
    assert c_x.abs().min() > 0
    assert memory.abs().max() > 0


@pytest.mark.parametrize(("size", "side", "rule"), [(1, 0.4, "size"), (6, 0.0, "side")])
def test_refuses_windows_that_see_nothing(size, side, rule, as_installed):
    with pytest.raises(ValueError, match=f"CloserLook: {rule} must be"):
        CloserLook((1, 40, 40), size, 8, 65, side=side)
