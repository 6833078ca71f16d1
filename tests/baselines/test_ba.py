"""DRAM: the overview says where, the crops say what, and neither learns from the other's loss."""

import numpy as np
import pytest
import torch
from oracles import convolve, dense, pool
from tolerances import assert_near

from ramlib.baselines.ba import BaConfig, BaReaderConfig
from ramlib.data.cluttered import ClutteredDigits
from ramlib.data.house_numbers import HouseNumbers
from ramlib.labels import decode_numbers, until_the_end

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


NUMBER = BaReaderConfig(glimpses=2, size=4, hidden=8, samples=3, shrink=3)


def reader(**changes):
    torch.manual_seed(0)
    return BaReaderConfig(**{**vars(NUMBER), **changes}).build((1, 24, 24), 11)


def numbers(*texts):
    """Grey crops and the labels of these numbers."""
    rows = [[*map(int, text), *[10] * (6 - len(text))] for text in texts]
    return torch.rand(len(texts), 1, 24, 24) * 255, torch.tensor(rows)


class TestReader:
    def test_answers_with_what_it_says_of_every_second_look(self):
        images, _ = numbers("12", "345")
        model = reader().eval()
        rollout = model(images)
        assert rollout.logits.shape == (2, 12, 11)
        chances = rollout.logits[:, 1::2].softmax(-1)
        assert torch.equal(rollout.labels, decode_numbers(until_the_end(chances)))
        assert torch.equal(model.predict(images), rollout.labels)
        assert all(1 <= len(text) <= 5 for text in model.read(images))

    def test_cross_entropy_is_that_of_the_digits_and_the_first_end(self):
        """Without noise to speak of; by a loop over objects, in numpy."""
        images, labels = numbers("7", "12345")
        model = reader(sigma=(1e-6, 1e-6))
        cross_entropy, _ = model.losses(images, labels)
        log_p = model(images, noisy=False).logits[:, 1::2].log_softmax(-1).detach().numpy()
        by_hand = [
            -sum(log_p[b, k, int(labels[b, k])] for k in range(digits + 1))
            for b, digits in enumerate((1, 5))
        ]
        assert cross_entropy.item() == pytest.approx(np.mean(by_hand), rel=1e-4)

    def test_a_look_is_judged_by_the_mean_of_its_object_and_the_later_ones(self, monkeypatch):
        images, labels = numbers("42")
        model, given = reader(), {}
        monkeypatch.setattr(
            "ramlib.baselines.ba.reinforce", lambda p, r: given.update(p=p, r=r) or p.sum()
        )
        torch.manual_seed(1)
        model.losses(images, labels)
        torch.manual_seed(1)
        seen = model.episode(images, 3, noisy=True)
        p = seen.logits[0, :, 1::2].softmax(-1).detach().numpy()
        earned = np.stack([p[:, 0, 4], p[:, 1, 2], p[:, 2, 10]], 1)  # a four, a two, the end
        for k in range(3):
            for look in (2 * k, 2 * k + 1):
                assert_near(given["r"][0, :, look], earned[:, k:].mean(1))
        # Three objects are asked for, the other three are beyond the end.
        assert (given["p"][0, :, :6] != 0).all()
        assert (given["p"][0, :, 6:] == 0).all()

    def test_who_learns_from_what(self):
        reading = {"g_image", "what", "g_loc", "where", "lower", "f_class"}
        model = reader()
        _, rewards = model.losses(*numbers("12", "3"))
        assert learners(model, rewards) == {"overview", "upper", "emission"}
        cross_entropy, _ = model.losses(*numbers("12", "3"))
        assert learners(model, cross_entropy) == reading

    def test_takes_the_mean_image_from_the_task_before_it_measures_crops(self):
        task = HouseNumbers("sample")
        model = BaReaderConfig().build(task.image_shape, task.classes)
        model.adapt(task)
        assert torch.equal(model.prepare.mean_image, task.mean_image())
        # Crops of centred grey are near 0; those of bytes would be near 100.
        assert model.crops.mean.abs().max() < 0.5
        assert (model.crops.deviation < 1).all()

    def test_passes_are_averaged(self):
        images, _ = numbers("12", "345")
        model = reader(sigma=(0.5, 0.5)).eval()
        torch.manual_seed(2)
        both = model.probabilities(images, passes=2)
        torch.manual_seed(2)
        runs = [model(images, noisy=True).logits[:, 1::2].softmax(-1) for _ in range(2)]
        assert_near(both, torch.stack([until_the_end(run) for run in runs]).mean(0))

    @pytest.mark.usefixtures("as_installed")
    def test_refuses_other_classes(self):
        with pytest.raises(ValueError, match="BaReader: classes must be 11"):
            BaReaderConfig().build((1, 64, 64), 10)
