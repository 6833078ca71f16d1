"""The plain CNN: the same interface as the models that look."""

import pytest
import torch
from oracles import convolve, dense
from tolerances import assert_near

from ramlib.baselines.cnn import CNNConfig


def test_matches_its_layers_computed_one_by_one():
    model = CNNConfig(widths=(2, 3), hidden=5).build((1, 9, 7), 4).double()
    image = torch.rand(1, 1, 9, 7, dtype=torch.float64)
    weights = [p.detach().numpy() for p in model.parameters()]
    x = convolve(image[0].numpy(), weights[0], weights[1], 2)
    x = convolve(x, weights[2], weights[3], 2)
    x = dense(x.ravel(), weights[4], weights[5], relu=True)
    x = dense(x, weights[6], weights[7], relu=False)
    assert_near(model(image).logits[0, 0], x)


def test_has_logits_and_nothing_that_it_looked_at():
    rollout = CNNConfig().build((1, 100, 100), 55)(torch.zeros(2, 1, 100, 100))
    assert rollout.logits.shape == (2, 1, 55)
    assert rollout.grids is None
    assert rollout.glimpses is None


def test_has_no_policy():
    assert CNNConfig(widths=(2,)).build((1, 8, 8), 3).policy_parameters() == []


def test_noise_changes_nothing():
    model, images = CNNConfig(widths=(2,)).build((1, 8, 8), 3), torch.rand(2, 1, 8, 8)
    assert torch.equal(model(images, noisy=True).logits, model(images).logits)


def test_strides_are_its_own_if_it_has_them():
    """Three layers, of which the middle one keeps the size."""
    model = CNNConfig(widths=(2, 3, 2), hidden=5, strides=(2, 1, 2)).build((1, 9, 7), 4).double()
    image = torch.rand(1, 1, 9, 7, dtype=torch.float64)
    weights = [p.detach().numpy() for p in model.parameters()]
    x = image[0].numpy()
    for layer, stride in enumerate((2, 1, 2)):
        x = convolve(x, weights[2 * layer], weights[2 * layer + 1], stride)
    x = dense(x.ravel(), weights[6], weights[7], relu=True)
    assert_near(model(image).logits[0, 0], dense(x, weights[8], weights[9], relu=False))


def test_refuses_strides_that_are_not_one_for_each_layer():
    with pytest.raises(ValueError, match=r"one for each of the 2 convolutions, got \(2,\)"):
        CNNConfig(widths=(2, 3), strides=(2,))
