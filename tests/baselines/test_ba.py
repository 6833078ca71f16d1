"""DRAM: the overview says where, the crops say what, and neither learns from the other's loss."""

import numpy as np
import pytest
import torch
from oracles import convolve, dense, pool
from tolerances import assert_near

from ramlib.baselines.ba import BaConfig
from ramlib.data.cluttered import ClutteredDigits

SMALL = BaConfig(glimpses=3, size=4, scales=(1, 2), hidden=8, samples=3, shrink=3)
SHAPE = (1, 30, 30)


def fresh(classes=10, **changes):
    return BaConfig(**{**vars(SMALL), **changes}).build(SHAPE, classes)


def batch(count=4):
    task = ClutteredDigits("pair", distractors=1, size=30)
    drawn = task.sample(count, generator=torch.Generator().manual_seed(0))
    return drawn.images, drawn.labels % 10


def learners(model, loss):
    """The parts of the model, by name, that a loss sends a gradient to."""
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name.split(".")[0]
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and gradient.abs().sum() > 0
    }


class TestWhoLearnsFromWhat:
    @pytest.mark.parametrize("eye", ["dense", "conv"])
    def test_cross_entropy_teaches_what_reads(self, eye):
        model = fresh(eye=eye)
        cross_entropy, _ = model.losses(*batch())
        reading = {"g_image", "what", "g_loc", "where", "lower", "f_class"}
        assert learners(model, cross_entropy) == reading

    def test_rewards_teach_what_looks(self):
        model = fresh()
        _, rewards = model.losses(*batch())
        assert learners(model, rewards) == {"overview", "upper", "emission"}

    def test_policy_parameters_are_those_that_rewards_teach(self):
        model = fresh()
        chosen = {id(parameter) for parameter in model.policy_parameters()}
        names = {n.split(".")[0] for n, p in model.named_parameters() if id(p) in chosen}
        assert names == {"overview", "upper", "emission"}


class TestEpisode:
    def test_matches_its_equations_computed_one_by_one(self):
        model = fresh().double().eval()
        images, _ = batch(2)
        images = images.double()
        seen = model.episode(images, 1, noisy=False)
        rollout = model(images)
        w = {name: p.detach().numpy() for name, p in model.named_parameters()}

        def layer(x, name, *, relu=True):
            return dense(x, w[f"{name}.weight"], w[f"{name}.bias"], relu=relu)

        def recurrent(name, x, state):
            z = layer(x, f"{name}.from_input", relu=False)
            return np.maximum(z + w[f"{name}.from_state.weight"] @ state, 0)

        for b in range(2):
            x = pool(images[b].numpy(), 3, np.mean)
            for i, stride in ((0, 2), (2, 2), (4, 1)):
                name = f"overview.convolutions.{i}"
                x = convolve(x, w[f"{name}.weight"], w[f"{name}.bias"], stride)
            r2 = layer(x.ravel(), "overview.project")
            r1, place = np.zeros(8), np.zeros(2)
            for t in range(3):
                if t > 0:
                    r2 = recurrent("upper", r1, r2)
                hidden = layer(r2, "emission.layers.0")
                share = np.tanh(layer(hidden, "emission.layers.2", relu=False))
                place = place + share * np.where(share > 0, 1 - place, 1 + place)
                assert_near(seen.places[b, 0, t], place)
                crops = model.crops(
                    model.crops.integral(images[b : b + 1]), torch.from_numpy(place)[None, None]
                )
                what = layer(layer(crops.numpy().ravel(), "g_image.1"), "what")
                r1 = recurrent("lower", what * layer(layer(place, "g_loc"), "where"), r1)
                logits = layer(layer(r1, "f_class.0"), "f_class.2", relu=False)
                assert_near(rollout.logits[b, t], logits)

    def test_every_place_is_chosen_the_first_one_too(self):
        seen = fresh().episode(batch()[0], 3, noisy=True)
        assert seen.means.shape == seen.places.shape == (4, 3, 3, 2)
        assert (seen.places[:, 0, 0] != seen.places[:, 1, 0]).all()

    def test_the_overview_can_only_say_where_to_look(self):
        """Two images that differ outside of all crops get the same scores, at the same places."""
        images = torch.zeros(2, 1, 30, 30)
        images[1, 0, 0, 0] = 1
        model = fresh().eval()
        torch.nn.init.zeros_(model.emission.layers[2].weight)  # all looks stay in the middle
        seen = model(images)
        assert torch.equal(seen.logits[0], seen.logits[1])
        states = model.overview(images)
        assert not torch.equal(states[0], states[1])

    def test_windows_are_the_finest_crops(self):
        windows = fresh().eval()(batch()[0]).windows
        assert_near(windows[..., 2:] - windows[..., :2], torch.full((4, 3, 2), 4.0))


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eye": "deep"}, "eye must be dense or conv, got 'deep'"),
        ({"shrink": 0}, "shrink must be at least 1, got 0"),
        ({"glimpses": 0}, "BaConfig: glimpses must be at least 1, got 0"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        BaConfig(**change)
