"""The feed-forward parts, layer by layer in numpy."""

import re

import numpy as np
import oracles
import pytest
import torch
from tolerances import assert_near
from torch import nn

from ramlib.networks import (
    ClassificationNetwork,
    ContextNetwork,
    ConvGlimpseNetwork,
    DenseGlimpseNetwork,
)


def weights_of(module):
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def convolutions_of(network):
    return [weights_of(layer) for layer in network.convolutions if isinstance(layer, nn.Conv2d)]


def assert_learns(network, inputs):
    """The gradient of every parameter is finite, and somewhere not zero."""
    network(inputs).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


class TestContextNetwork:
    @pytest.mark.parametrize("shrink", [1, 2, 3])
    @pytest.mark.parametrize("shape", [(1, 16, 16), (3, 13, 22)])
    def test_matches_the_layers_in_numpy(self, shape, shrink):
        """Averaged down, three strided convolutions, one dense layer, ReLU after each."""
        network = ContextNetwork(shape, 5, shrink=shrink, widths=(2, 3, 4)).double()
        images = torch.rand(2, *shape, dtype=torch.float64)
        for image, features in zip(images.numpy(), network(images), strict=True):
            x = oracles.pool(image, shrink, np.mean)
            for weight, bias in convolutions_of(network):
                x = oracles.convolve(x, weight, bias, stride=2)
            assert_near(features, oracles.dense(x.ravel(), *weights_of(network.project), relu=True))

    def test_has_three_convolutions_unless_told(self):
        assert len(convolutions_of(ContextNetwork((1, 100, 100)))) == 3

    def test_gradient_reaches_every_parameter(self):
        assert_learns(ContextNetwork((2, 20, 30), 16), torch.rand(4, 2, 20, 30))

    @pytest.mark.parametrize("shrink", [0, -1, 21])
    def test_refuses_to_shrink_beyond_the_image(self, shrink):
        message = "shrink must be in [1, 20] for images of shape (1, 20, 30), got "
        with pytest.raises(ValueError, match=re.escape(f"ContextNetwork: {message}{shrink}")):
            ContextNetwork((1, 20, 30), shrink=shrink)


class TestDenseGlimpseNetwork:
    def test_matches_the_layers_in_numpy(self):
        network = DenseGlimpseNetwork(3, 4, features=6, hidden=5).double()
        first, second = (layer for layer in network.layers if isinstance(layer, nn.Linear))
        glimpses = torch.rand(2, 3, 4, 4, dtype=torch.float64)
        for glimpse, features in zip(glimpses.numpy(), network(glimpses), strict=True):
            hidden = oracles.dense(glimpse.ravel(), *weights_of(first), relu=True)
            assert_near(features, oracles.dense(hidden, *weights_of(second), relu=True))

    def test_gradient_reaches_every_parameter(self):
        assert_learns(DenseGlimpseNetwork(1, 6, 16, 16), torch.rand(8, 1, 6, 6))


class TestConvGlimpseNetwork:
    @pytest.mark.parametrize("widths", [(2, 3, 2), (2, 3, 2, 3, 2)], ids=["three", "five"])
    @pytest.mark.parametrize("size", [6, 7])
    def test_matches_the_layers_in_numpy(self, size, widths):
        """Pooled once, after the convolution in the middle."""
        network = ConvGlimpseNetwork(2, size, features=5, widths=widths).double()
        glimpses = torch.rand(2, 2, size, size, dtype=torch.float64)
        middle = {3: 2, 5: 3}[len(widths)]
        for glimpse, features in zip(glimpses.numpy(), network(glimpses), strict=True):
            x = glimpse
            for depth, (weight, bias) in enumerate(convolutions_of(network), 1):
                x = oracles.convolve(x, weight, bias, stride=1)
                if depth == middle:
                    x = oracles.pool(x, 2, np.max)
            assert_near(features, oracles.dense(x.ravel(), *weights_of(network.project), relu=True))

    def test_gradient_reaches_every_parameter(self):
        assert_learns(ConvGlimpseNetwork(3, 8, 16), torch.rand(8, 3, 8, 8))

    def test_refuses_a_glimpse_too_small_to_pool(self):
        with pytest.raises(ValueError, match="ConvGlimpseNetwork: size must be at least 2, got 1"):
            ConvGlimpseNetwork(1, 1)


class TestClassificationNetwork:
    def test_matches_the_layers_in_numpy(self):
        network = ClassificationNetwork(6, 4, hidden=5).double()
        states = torch.randn(3, 6, dtype=torch.float64)
        for state, logits in zip(states.numpy(), network(states), strict=True):
            hidden = oracles.dense(state, *weights_of(network[0]), relu=True)
            assert_near(logits, oracles.dense(hidden, *weights_of(network[2]), relu=False))

    def test_may_have_two_hidden_layers(self):
        network = ClassificationNetwork(6, 4, hidden=5, layers=2).double()
        state = torch.randn(6, dtype=torch.float64)
        hidden = oracles.dense(state.numpy(), *weights_of(network[0]), relu=True)
        hidden = oracles.dense(hidden, *weights_of(network[2]), relu=True)
        assert_near(network(state), oracles.dense(hidden, *weights_of(network[4]), relu=False))

    def test_classifies_every_look_of_a_rollout_alike(self):
        network = ClassificationNetwork(6, 4)
        memories = torch.randn(3, 5, 6)
        logits = network(memories)
        assert logits.shape == (3, 5, 4)
        assert_near(logits[:, 2], network(memories[:, 2]))
