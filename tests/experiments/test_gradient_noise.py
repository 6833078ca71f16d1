"""The noise of two gradients: each estimates the same number, and that is checked by quadrature."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from tiny import TINY
from tolerances import assert_near

from ramlib.attention import Window
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments import RECIPES, gradient_noise
from ramlib.experiments.gradient_noise import (
    drawn_losses,
    estimates,
    measure_noise,
    top_share,
    within,
)
from ramlib.model import RAMConfig

TASK = ClutteredDigits("digit", distractors=1, size=30)


def fresh(glimpses=2):
    torch.manual_seed(0)
    config = RAMConfig(
        glimpses=glimpses, size=4, hidden=8, context=False, window=Window(0.5, 0.3, 0.9)
    )
    return config.build((1, 30, 30), 10)


def batch(count=3):
    drawn = TASK.sample(count, generator=torch.Generator().manual_seed(0))
    return drawn.images, drawn.labels


def test_without_noise_the_loss_is_the_models_own():
    model = fresh().eval()
    images, labels = batch()
    losses, centres = drawn_losses(model, images, labels, torch.zeros(3, 2, 2))
    rollout = model(images)
    assert_near(losses.mean(), model.loss(rollout, labels))
    assert_near(torch.stack(centres, 1)[..., 0], rollout.grids.c_x)


def test_noise_moves_what_is_seen_and_not_what_is_named():
    model = fresh().eval()
    images, labels = batch()
    noise = torch.zeros(3, 2, 2)
    noise[:, 1, 0] = 0.3
    losses, centres = drawn_losses(model, images, labels, noise)
    still, named = drawn_losses(model, images, labels, torch.zeros(3, 2, 2))
    assert (losses != still).all()
    assert torch.equal(torch.stack(centres), torch.stack(named))


@pytest.fixture(scope="module")
def averages():
    """The mean of each estimate over all draws, and the slope of the expected loss.

    One look, two samples: the Gaussian integral is a sum over nodes (Gauss-Hermite), on a Gaussian
    so narrow that no ReLU bends within it.
    """
    model, sigma = fresh(glimpses=1).double().eval(), 0.002
    images, labels = batch(1)
    images = images.double()
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    means: dict = {}
    for places in product(range(3), repeat=4):
        noise = torch.from_numpy(nodes[list(places)]).view(1, 2, 1, 2)
        for name, g in estimates(model, images, labels, sigma, noise).items():
            share = weights[list(places)].prod() * g.mean(1).flatten()
            means[name] = means.get(name, 0) + share
    step = 1e-5

    def expected(axis, shift):
        value = 0.0
        for i, j in product(range(3), repeat=2):
            noise = sigma * torch.from_numpy(nodes[[i, j]]).view(1, 1, 2)
            noise[..., axis] += shift
            value += weights[i] * weights[j] * drawn_losses(model, images, labels, noise)[0].item()
        return value

    slope = [(expected(a, step) - expected(a, -step)) / (2 * step) for a in (0, 1)]
    return means, torch.tensor(slope, dtype=torch.float64)


@pytest.mark.parametrize("name", ["pathwise", "none", "others"])
def test_estimates_the_slope_of_the_expected_loss_without_bias(averages, name):
    means, slope = averages
    assert slope.abs().min() > 1e-4
    assert_near(means[name], slope, rtol=2e-2, atol=1e-5)


class TestStatistics:
    def test_within_is_the_trace_of_the_covariance_over_samples(self):
        g = torch.randn(4, 3, 2, 2, dtype=torch.float64)
        by_hand = np.mean([np.trace(np.cov(image.reshape(3, 4).T)) for image in g.numpy()])
        assert_near(within(g), by_hand)

    def test_within_does_not_count_how_images_differ(self):
        assert within(torch.randn(4, 1, 2, 2).expand(4, 3, 2, 2)).item() == pytest.approx(0)

    def test_top_share_by_hand(self):
        """Of 200 rollouts the two loudest: 9 + 4 of 9 + 4 + 198 * 0.01."""
        g = torch.zeros(20, 10, 1, 2)
        g[..., 0] = 0.1
        g[3, 2, 0, 0], g[7, 1, 0, 0] = 3.0, -2.0
        assert top_share(g).item() == pytest.approx(13 / (13 + 1.98), rel=1e-5)

    def test_limited_gradients_point_the_same_way_and_are_no_longer_than_one(self):
        model = fresh()
        noise = torch.randn(3, 4, 2, 2)
        with torch.no_grad():  # a head so steep that some gradients are longer
            model.f_class[2].weight.mul_(100)
        found = estimates(model, *batch(), 0.1, noise)
        long, short = found["pathwise"].norm(dim=-1), found["limited"].norm(dim=-1)
        assert (long > 1).any()
        assert short.max() <= 1 + 1e-5
        assert_near(found["limited"] * long[..., None], found["pathwise"] * short[..., None])


class TestMeasureNoise:
    def test_is_the_same_for_the_same_seed_and_leaves_the_policy_as_it_was(self):
        model = fresh()
        model.f_ext.gradient_limit = 0.5
        first, again = (
            measure_noise(model, TASK, 0.1, batches=3, images=4, samples=2) for _ in range(2)
        )
        assert first == again
        assert model.f_ext.gradient_limit == 0.5

    def test_ratios_are_to_the_pathwise_gradient(self):
        found = measure_noise(fresh(), TASK, 0.1, batches=3, images=4, samples=2)
        assert found["pathwise"]["ratio"] == [1.0, 1.0, 1.0]
        assert set(found) == {"pathwise", "limited", "none", "batch", "others"}
        assert found["none"]["ratio"][1] > found["others"]["ratio"][1] > 0

    def test_less_sigma_makes_rewards_noisier(self):
        near, far = (
            measure_noise(fresh(), TASK, sigma, batches=3, images=4, samples=2)
            for sigma in (0.01, 0.3)
        )
        assert near["none"]["noise"][1] > far["none"]["noise"][1]


class TestRun:
    def test_measures_what_is_missing_and_keeps_what_is_there(self, tmp_path, monkeypatch):
        monkeypatch.setattr(gradient_noise, "STATES", gradient_noise.STATES[:1])
        monkeypatch.setattr(gradient_noise, "SIGMAS", (0.05, 0.1))
        monkeypatch.setattr(gradient_noise.experiments, "get", lambda _: TINY)
        file, budget = tmp_path / "noise.json", {"batches": 2, "images": 3, "samples": 2}
        rows = gradient_noise.run(tmp_path, file, **budget)
        assert [(row["state"], row["sigma"]) for row in rows] == [
            ("before training", 0.05),
            ("before training", 0.1),
        ]
        kept = [{**rows[0], "date": "then"}]
        file.write_text(json.dumps(kept))
        again = gradient_noise.run(tmp_path, file, **budget)
        assert again == [*kept, rows[1]]
        assert gradient_noise.read(file) == again

    def test_nothing_measured_is_no_rows(self, tmp_path):
        assert gradient_noise.read(tmp_path / "none.json") == []

    def test_every_state_is_a_recipe(self):
        assert {name for name, _ in gradient_noise.STATES if name} <= set(RECIPES)
