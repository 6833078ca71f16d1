"""Controls: windows that do not depend on the image, and all else as in the model they control."""

import pytest
import torch
from tolerances import assert_near

from ramlib.attention import SIGMA_FLOOR, Window
from ramlib.model import RAMConfig, RecurrentAttentionModel
from ramlib.models.controls import BlindConfig

SHAPE = (1, 20, 20)
SMALL = {"size": 4, "hidden": 8, "context": False, "window": Window(0.5, 0.2, 0.9)}
IMAGES = torch.rand(5, *SHAPE)


def fresh(path, **changes):
    torch.manual_seed(0)
    return BlindConfig(**{**SMALL, **changes}, path=path).build(SHAPE, 10)


@pytest.mark.parametrize("path", ["centre", "tiles", "random"])
class TestEveryPath:
    def test_windows_are_the_same_for_all_images(self, path):
        windows = fresh(path).eval()(IMAGES).windows
        assert torch.equal(windows, windows[:1].expand_as(windows))

    def test_nothing_of_the_policy_is_learnt(self, path):
        assert fresh(path).policy_parameters() == []

    def test_all_else_is_our_model(self, path):
        """Our model, led through the same windows, says the same."""
        model = fresh(path).eval()
        ours = RecurrentAttentionModel(RAMConfig(**SMALL), SHAPE, 10).eval()
        ours.load_state_dict(
            {n: v for n, v in model.state_dict().items() if not n.startswith("f_ext.")},
            strict=False,
        )
        rollout = model(IMAGES)
        state, looks = ours.begin(IMAGES), []
        for t in range(4):
            through = rollout.grids[:, t]
            looks.append(ours.look(IMAGES, state, None, noisy=False, through=through))
            state = looks[-1].state
        assert_near(rollout.logits, ours.rollout(looks).logits)

    def test_shifts_lead_from_the_middle_along_the_path(self, path):
        rollout = fresh(path).eval()(IMAGES)
        centres = torch.stack([rollout.grids.c_x, rollout.grids.c_y], -1)
        assert_near(rollout.shifts.cumsum(1), centres)


def test_the_centre_is_looked_at_every_time():
    windows = fresh("centre", glimpses=3)(IMAGES).windows
    delta = 0.5 * 19 / 3
    low, high = 10 - 2 * delta, 10 + 2 * delta
    assert_near(windows, torch.tensor([low, low, high, high]).expand(5, 3, 4))


def test_tiles_lie_in_the_four_quarters():
    windows = fresh("tiles")(IMAGES).windows[0]
    middles = (windows[:, :2] + windows[:, 2:]) / 2
    assert_near(middles, [[5.25, 5.25], [14.75, 5.25], [5.25, 14.75], [14.75, 14.75]])


def test_grids_are_as_sharp_as_those_that_our_policy_begins_with():
    grids = fresh("centre")(IMAGES).grids
    assert_near(grids.sigma, grids.delta_x / 2 + SIGMA_FLOOR)
    assert_near(grids.gamma, torch.ones(5, 4))


class TestRandomPlaces:
    def test_differ_between_images_and_passes_with_noise(self):
        model = fresh("random")
        once, again = (model(IMAGES, noisy=True).windows for _ in range(2))
        assert (once[0] != once[1]).any()
        assert (once != again).any()
        assert model.stochastic

    def test_are_settled_with_the_weights_without_noise(self):
        model, other = fresh("random").eval(), fresh("random").eval()
        other.f_ext.places.add_(0.1)
        assert (model(IMAGES).windows != other(IMAGES).windows).any()
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(IMAGES).windows, other(IMAGES).windows)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "spiral"}, "path must be one of centre, tiles, random, got 'spiral'"),
        ({"path": "tiles", "glimpses": 3}, "tiles need 4 glimpses, got 3"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        BlindConfig(**change)
