"""Spatial transformers: what an affine map shows, where it begins, and who learns to lay it."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from tolerances import assert_near

from ramlib.baselines.jaderberg import (
    AffineHead,
    JaderbergConfig,
    SonderbyConfig,
    bounds,
    transform,
)

SMALL = {"size": 6, "localisation": (4, 6), "widths": (4, 6), "hidden": 16}
SHAPE = (1, 20, 20)


def affine(a, b, x, c, d, y):
    return torch.tensor([[[a, b, x], [c, d, y]]], dtype=torch.float64)


def slow_transform(image, theta, size):
    """The equations of Section 3, Jaderberg et al. (2015), in a loop, for one image `(H, W)`."""
    height, width = image.shape
    out = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        target = np.array([(2 * j + 1) / size - 1, (2 * i + 1) / size - 1, 1])
        x, y = theta @ target
        x, y = (x + 1) * width / 2 - 0.5, (y + 1) * height / 2 - 0.5
        for m, n in np.ndindex(height, width):
            out[i, j] += image[m, n] * max(0, 1 - abs(x - n)) * max(0, 1 - abs(y - m))
    return out


class TestTransform:
    def test_matches_its_equations(self):
        image = torch.rand(1, 1, 7, 9, dtype=torch.float64)
        theta = affine(0.6, 0.2, 0.3, -0.3, 0.5, -0.4)
        expected = slow_transform(image[0, 0].numpy(), theta[0].numpy(), 4)
        assert_near(transform(image, theta, 4)[0, 0], expected)

    def test_the_identity_shows_the_image(self):
        image = torch.rand(2, 3, 8, 8, dtype=torch.float64)
        assert_near(transform(image, affine(1, 0, 0, 0, 1, 0).expand(2, -1, -1), 8), image)

    def test_a_half_of_the_image(self):
        """Half as wide and half to the left: the left half, upper to lower edge."""
        image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
        shown = transform(image, affine(0.5, 0, -0.5, 0, 1, 0), 8)
        assert_near(shown[0, 0, :, 1:-1].mean(), image[0, 0, :, :4].mean(), atol=0.2, rtol=0)

    def test_gradient(self):
        image = torch.rand(1, 1, 7, 9, dtype=torch.float64)
        theta = affine(0.61, 0.2, 0.3, -0.3, 0.53, -0.4).requires_grad_()
        assert torch.autograd.gradcheck(lambda t: transform(image, t, 3), theta)


class TestBounds:
    def test_the_identity_shows_all_of_the_image(self):
        assert_near(bounds(affine(1, 0, 0, 0, 1, 0), (10, 20)), [[0, 0, 20, 10]])

    def test_of_a_shifted_zoom_by_hand(self):
        """A quarter of the side, around the middle of the right upper quarter."""
        assert_near(bounds(affine(0.25, 0, 0.5, 0, 0.25, -0.5), (40, 40)), [[25, 5, 35, 15]])

    def test_around_a_turned_square(self):
        """Turned by 45 degrees, a square is as wide as its diagonal."""
        s = math.sqrt(0.5) / 2
        assert_near(bounds(affine(s, -s, 0, s, s, 0), (10, 10))[0, 2], 5 + 5 * math.sqrt(0.5))

    def test_holds_every_place_that_the_map_shows(self):
        theta = affine(0.6, 0.2, 0.3, -0.3, 0.5, -0.4)
        corners = torch.tensor([[-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1.0]]).double()
        places = (corners @ theta[0].T + 1) * torch.tensor([9 / 2, 7 / 2])
        x1, y1, x2, y2 = bounds(theta, (7, 9))[0]
        assert_near(places.amin(0), torch.stack([x1, y1]))
        assert_near(places.amax(0), torch.stack([x2, y2]))


class TestModels:
    @pytest.fixture(params=[JaderbergConfig, SonderbyConfig])
    def model(self, request):
        torch.manual_seed(0)
        return request.param(**SMALL).build(SHAPE, 10)

    def test_begins_with_the_whole_image_whatever_it_shows(self, model):
        windows = model(torch.rand(4, *SHAPE)).windows
        assert_near(windows, torch.tensor([0.0, 0, 20, 20]).expand_as(windows))

    def test_begins_zoomed_if_told_to(self, model):
        zoomed = type(model.config)(**{**SMALL, "zoom": 0.5}).build(SHAPE, 10)
        windows = zoomed(torch.rand(4, *SHAPE)).windows
        assert_near(windows, torch.tensor([5.0, 5, 15, 15]).expand_as(windows))

    def test_shows_the_classifier_what_the_map_shows(self, model):
        torch.nn.init.normal_(model.affine.weight, std=0.3)
        images = torch.rand(3, *SHAPE)
        rollout = model(images)
        features = model.see(rollout.glimpses[:, 0])
        if isinstance(model.config, SonderbyConfig):
            features = model.remember(model.remember.from_input(features), None)
        assert_near(rollout.logits[:, 0], model.f_class(features))
        assert rollout.windows.shape == (*rollout.logits.shape[:2], 4)

    def test_what_names_the_map_learns_once_the_head_has_left_zero(self, model):
        """At first no gradient comes to the localisation network, through weights of zero."""
        images, labels = torch.rand(4, *SHAPE), torch.tensor([1, 2, 3, 4])
        behind = {"localise", "plan"} & {n.split(".")[0] for n, _ in model.named_parameters()}
        for blocked in (behind, set()):
            model.zero_grad()
            model.objective(images, labels).backward()
            moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad.abs().sum() > 0}
            assert moved == {n.split(".")[0] for n, _ in model.named_parameters()} - blocked
            torch.nn.init.normal_(model.affine.weight)

    def test_the_policy_is_the_head(self, model):
        assert [id(p) for p in model.policy_parameters()] == [
            id(model.affine.weight),
            id(model.affine.bias),
        ]

    def test_noise_changes_nothing(self, model):
        images = torch.rand(3, *SHAPE)
        assert torch.equal(model(images, noisy=True).logits, model.eval()(images).logits)


def test_the_recurrent_form_looks_at_one_place_after_another():
    torch.manual_seed(0)
    model = SonderbyConfig(**SMALL, glimpses=3).build(SHAPE, 10)
    torch.nn.init.normal_(model.affine.weight)
    windows = model(torch.rand(2, *SHAPE)).windows
    assert windows.shape == (2, 3, 4)
    assert (windows[:, 0] != windows[:, 1]).any()
    assert (windows[:, 1] != windows[:, 2]).any()


def test_the_head_is_computed_in_full_precision_within_mixed_precision():
    head = AffineHead(8)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.rand(2, 8).bfloat16()).dtype == torch.float32


@pytest.mark.usefixtures("as_installed")
class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "change", "message"),
        [
            (JaderbergConfig, {"size": 0}, "JaderbergConfig: size must be at least 1, got 0"),
            (JaderbergConfig, {"shrink": 0}, "shrink must be at least 1, got 0"),
            (JaderbergConfig, {"zoom": 0.0}, "zoom must be above 0, got 0"),
            (SonderbyConfig, {"glimpses": 0}, "SonderbyConfig: glimpses must be at least 1, got 0"),
            (SonderbyConfig, {"zoom": -1.0}, "SonderbyConfig: zoom must be above 0, got -1"),
        ],
    )
    def test_a_config_out_of_range(self, config, change, message):
        with pytest.raises(ValueError, match=message):
            config(**change)

    def test_images_of_another_shape(self):
        with pytest.raises(ValueError, match=r"images must have shape \(B, 1, 20, 20\)"):
            JaderbergConfig(**SMALL).build(SHAPE, 10)(torch.zeros(2, 1, 20, 21))


def test_the_plain_form_looks_once_and_says_so():
    assert asdict(JaderbergConfig(**SMALL))["glimpses"] == 1
    assert JaderbergConfig(**SMALL).build(SHAPE, 10)(torch.rand(2, *SHAPE)).logits.shape[1] == 1
