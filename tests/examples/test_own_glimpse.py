"""Hard crops against slices, one image and one scale at a time."""

import own_glimpse
import pytest
import torch
from torch.nn import functional as F

from ramlib import GlimpseGrid


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_are_slices_of_the_padded_image(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, channels, 15, 20, generator=generator)
    c_x, c_y = 2 * torch.rand(2, 6, generator=generator) - 1
    c_x[0], c_y[0] = -1, 1  # a corner
    ones = torch.ones(6)
    seen = own_glimpse.hard_crops(images, GlimpseGrid(c_x, c_y, ones, ones, ones, ones), 4)
    assert seen.shape == (6, 3 * channels, 4, 4)
    for b in range(6):
        x, y = round(9.5 * (c_x[b].item() + 1)), round(7.0 * (c_y[b].item() + 1))
        for k, scale in enumerate((1, 2, 4)):
            side = 4 * scale
            whole = F.pad(images[b], [side] * 4)
            top, left = (place + side - (side - 1) // 2 for place in (y, x))
            crop = whole[:, top : top + side, left : left + side]
            expected = crop.unflatten(1, (4, scale)).unflatten(3, (4, scale)).mean((2, 4))
            torch.testing.assert_close(seen[b, k * channels : (k + 1) * channels], expected)


def test_both_glimpses_train():
    assert set(own_glimpse.main(updates=2, batch=4)) == {"read_glimpse", "hard_crops"}
