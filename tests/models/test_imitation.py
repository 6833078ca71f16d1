"""Attention by example: seeing through a guide's windows."""

from dataclasses import replace

import pytest
import torch
from tolerances import assert_near

from ramlib import experiments
from ramlib.experiments import pairs, weights
from ramlib.glimpse import GlimpseGrid
from ramlib.model import RAMConfig
from ramlib.models import imitation
from ramlib.models.imitation import GuidedConfig, window_distance

SIDE = (1, 100, 100)


def grid(c_x, c_y, delta_x, delta_y):
    values = [torch.tensor([v], dtype=torch.float64) for v in (c_x, c_y, delta_x, delta_y, 1, 1)]
    return GlimpseGrid(*values)


@pytest.fixture(scope="module")
def task():
    return experiments.get("pairs-guided").task


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = GuidedConfig(hidden=256, window=pairs.TWO_DIGITS.window).build(SIDE, 55)
    built.follow(weights.load(experiments.get("pairs-guided").guide))
    return built


def images_of(task, count=6):
    batch = task.sample(count, split="validation", generator=torch.Generator().manual_seed(3))
    return batch.images, batch.labels


class TestWindowDistance:
    def test_by_hand(self):
        """0.3^2 + 0.4^2 for the place; ln(2)^2 / 10 for a side that is twice as long."""
        value = window_distance(grid(0.5, -0.2, 2.0, 3.0), grid(0.2, 0.2, 4.0, 3.0))
        assert_near(value, [0.25 + 0.6931471805599453**2 / 10])

    def test_is_zero_for_the_same_window(self):
        one = grid(0.1, 0.2, 3.0, 4.0)
        assert window_distance(one, one).item() == 0


class TestGuidedConfig:
    def test_refuses_too_few_looks_to_follow(self):
        with pytest.raises(ValueError, match=r"follow must name 4 looks.*got \(0, 4\)"):
            GuidedConfig(follow=(0, 4))

    def test_weights_fit_the_model_without_a_guide(self, model):
        plain = RAMConfig(window=pairs.TWO_DIGITS.window).build(SIDE, 55)
        shapes = {name: value.shape for name, value in plain.state_dict().items()}
        assert shapes == {name: value.shape for name, value in model.state_dict().items()}


class TestGuidedModel:
    def test_follows_the_named_looks_of_both_reads(self, model, task):
        images, _ = images_of(task)
        (guide,) = model._guide
        with torch.no_grad():
            theirs = guide(images, noisy=False).grids
        ours = model.shown(images)
        for t, look in enumerate((0, 3, 4, 7)):
            assert torch.equal(ours.c_x[:, t], theirs.c_x[:, look])
            assert torch.equal(ours.delta_y[:, t], theirs.delta_y[:, look])

    def test_sees_through_the_guides_windows(self, model, task, monkeypatch):
        """Wherever its own policy points, what it reads and its class loss stay the same."""
        images, labels = images_of(task)
        monkeypatch.setattr(imitation, "window_distance", lambda ours, _: 0 * ours.c_x)
        before = model.objective(images, labels)
        moved = replace(model.config, penalised_step=None).build(SIDE, 55)
        moved.load_state_dict(model.state_dict())
        moved.follow(model._guide[0].reader)
        with torch.no_grad():
            moved.f_ext.linear.bias.add_(0.7)
        assert_near(moved.objective(images, labels), before)

    def test_policy_learns_from_the_distance_alone(self, model, task, monkeypatch):
        images, labels = images_of(task)
        weight = model.f_ext.linear.weight
        (gradient,) = torch.autograd.grad(model.objective(images, labels), weight)
        assert gradient.abs().max() > 0
        monkeypatch.setattr(imitation, "window_distance", lambda ours, _: 0 * ours.c_x)
        (gradient,) = torch.autograd.grad(model.objective(images, labels), weight)
        assert gradient.abs().max() == 0

    def test_the_guide_is_neither_trained_nor_stored(self, model, task):
        images, labels = images_of(task)
        model.zero_grad()
        model.objective(images, labels).backward()
        (guide,) = model._guide
        assert all(parameter.grad is None for parameter in guide.parameters())
        assert not any("guide" in name for name in model.state_dict())
