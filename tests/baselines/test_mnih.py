"""RAM: crops against slow loops, REINFORCE against enumeration, and who learns from what."""

from itertools import product

import numpy as np
import pytest
import torch
from tolerances import assert_near

from ramlib.baselines.mnih import (
    CropPyramid,
    MnihConfig,
    later_means,
    log_density,
    move,
    reinforce,
)
from ramlib.data.cluttered import ClutteredDigits

SMALL = MnihConfig(glimpses=3, size=4, scales=(1, 2), hidden=16, samples=3, anneal=10)
SHAPE = (1, 30, 30)


def fresh(config=SMALL, classes=10):
    return config.build(SHAPE, classes)


def batch(count=5):
    task = ClutteredDigits("digit", distractors=1, size=30)
    drawn = task.sample(count, generator=torch.Generator().manual_seed(0))
    return drawn.images, drawn.labels


def slow_crop(image, x, y, size, scale):
    """One crop of one image `(H, W)` around pixel border (x, y): a loop over blocks and pixels."""
    height, width = image.shape
    crop = np.zeros((size, size), image.dtype)
    for i, j in np.ndindex(size, size):
        total = image.dtype.type(0)
        for a, b in np.ndindex(scale, scale):
            row = y + (i - size // 2) * scale + a
            column = x + (j - size // 2) * scale + b
            if 0 <= row < height and 0 <= column < width:
                total += image[row, column]
        crop[i, j] = total / scale**2
    return crop


class TestCropPyramid:
    def test_matches_a_slow_loop_to_the_bit(self):
        """On 8-bit pixels all sums are exact, whatever their order; two channels, two samples."""
        images = torch.randint(256, (3, 2, 17, 23)).float()
        places = torch.tensor([[[0.0, 0.0], [-1.0, 1.0]], [[0.3, -0.7], [1.0, -1.0]]])
        places = torch.cat([places, torch.rand(1, 2, 2) * 2 - 1])
        crops = CropPyramid((2, 17, 23), 6, (1, 2, 8))
        found = crops.raw(crops.integral(images), places)
        assert found.shape == (3, 2, 2, 3, 6, 6)
        for b, s, c, (k, scale) in product(range(3), range(2), range(2), enumerate((1, 2, 8))):
            # The border nearest to the place, half a pixel right of a pixel's centre.
            x = round((places[b, s, 0].item() + 1) * 22 / 2 + 0.5)
            y = round((places[b, s, 1].item() + 1) * 16 / 2 + 0.5)
            assert np.array_equal(
                found[b, s, c, k].numpy(), slow_crop(images[b, c].numpy(), x, y, 6, scale)
            )

    def test_boxes_are_what_the_finest_crop_covers(self):
        """A pixel inside the box is seen, the next one outside is not."""
        crops = CropPyramid((1, 20, 30), 4, (1,))
        place = torch.tensor([[[0.2, -0.3]]])
        x1, y1, x2, y2 = crops.boxes(place)[0, 0].long().tolist()
        assert (x2 - x1, y2 - y1) == (4, 4)
        for x, y, seen in ((x1, y1, 1), (x2 - 1, y2 - 1, 1), (x1 - 1, y1, 0), (x2, y2 - 1, 0)):
            image = torch.zeros(1, 1, 20, 30)
            image[0, 0, y, x] = 1
            assert crops.raw(crops.integral(image), place).sum() == seen

    def test_standardised_crops_have_mean_0_and_deviation_1_at_every_scale(self):
        images = torch.rand(400, 1, 40, 40) ** 3
        crops = CropPyramid((1, 40, 40), 6, (1, 3))
        crops.standardise(images)
        places = torch.rand(400, 1, 2) * 2 - 1
        found = crops(crops.integral(images), places).transpose(0, 3).flatten(1)
        assert_near(found.mean(1), torch.zeros(2), atol=0.1, rtol=0)
        assert_near(found.std(1), torch.ones(2), atol=0.1, rtol=0)

    @pytest.mark.parametrize(
        ("size", "scales", "message"),
        [(5, (1,), "size must be even"), (0, (1,), "size must be even"), (4, (0, 1), "scales"),
         (4, (), "scales")],
    )  # fmt: skip
    def test_refuses(self, size, scales, message):
        with pytest.raises(ValueError, match=message):
            CropPyramid((1, 20, 20), size, scales)


class TestReinforce:
    def test_its_mean_over_all_draws_is_the_exact_gradient(self):
        """Two images, two samples each of one of three actions: 81 draws, weighted by chance."""
        logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        rewards = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
        log_p = logits.log_softmax(-1)
        (exact,) = torch.autograd.grad(-(log_p.exp() * rewards).sum(-1).mean(), logits)
        mean = torch.zeros_like(exact)
        for draw in product(range(3), repeat=4):
            actions = torch.tensor(draw).view(2, 2)
            log_p = logits.log_softmax(-1).gather(1, actions)
            chance = log_p.sum().exp().detach()
            surrogate = reinforce(log_p, rewards.gather(1, actions))
            mean += chance * torch.autograd.grad(surrogate, logits)[0]
        assert_near(mean, exact)

    def test_for_a_gaussian_its_mean_is_the_exact_gradient(self):
        """Reward -(x - 1)^2 - y^2: on average -(m_x - 1)^2 - m_y^2 - 2 sigma^2.

        Gauss-Hermite quadrature is exact for what stands under the integral.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(4)
        weights = weights / weights.sum()
        mean = torch.tensor([0.3, -0.6], dtype=torch.float64, requires_grad=True)
        sigma = torch.tensor(0.4, dtype=torch.float64)
        found = torch.zeros(2, dtype=torch.float64)
        for places in product(range(4), repeat=4):
            noise = torch.from_numpy(nodes[list(places)]).view(1, 2, 2)
            drawn = (mean + sigma * noise).detach()
            rewards = -((drawn[..., 0] - 1) ** 2) - drawn[..., 1] ** 2
            surrogate = reinforce(log_density(drawn, mean.expand(1, 2, 2), sigma), rewards)
            found += weights[list(places)].prod() * torch.autograd.grad(surrogate, mean)[0]
        assert_near(found, 2 * (mean.detach() - torch.tensor([1.0, 0.0])))

    def test_equal_returns_teach_nothing(self):
        log_p = torch.randn(4, 3, 2, requires_grad=True)
        reinforce(log_p, torch.rand(4, 1, 2).expand(4, 3, 2)).backward()
        assert_near(log_p.grad, torch.zeros(4, 3, 2))

    def test_refuses_a_single_sample(self):
        with pytest.raises(ValueError, match="at least 2 samples, got 1"):
            reinforce(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2))

    def test_density_is_the_gaussians_but_for_a_constant(self):
        means = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
        places, sigma = torch.randn(5, 2, dtype=torch.float64), torch.tensor(0.3).double()
        ours = torch.autograd.grad(log_density(places, means, sigma).sum(), means)[0]
        theirs = torch.distributions.Normal(means, sigma).log_prob(places).sum()
        assert_near(ours, torch.autograd.grad(theirs, means)[0])

    def test_a_place_earns_the_mean_of_the_rewards_from_its_look_on(self):
        rewards = torch.tensor([[0.5, 0.2, 0.8, 0.3]])
        assert_near(later_means(rewards), [[0.45, 1.3 / 3, 0.55, 0.3]])


class TestMove:
    def test_by_hand(self):
        """Half of the way to the right border, and half of the way to the upper one."""
        raw = torch.tensor([0.5, -0.5]).atanh()
        assert_near(move(torch.tensor([0.2, 0.2]), raw), [0.6, -0.4])

    @pytest.mark.parametrize("last", [-1.0, 0.0, 1.0])
    def test_reaches_every_place_and_none_outside(self, last):
        places = move(torch.full((3, 2), last), torch.tensor([[-30.0] * 2, [0.0] * 2, [30.0] * 2]))
        assert_near(places[:, 0], [-1, last, 1])

    def test_gradient(self):
        last = torch.tensor([[0.3, -0.8], [-0.4, 0.9]], dtype=torch.float64)
        raw = torch.tensor([[0.5, -2.0], [-0.1, 1.0]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda r: move(last, r), raw)


def learners(model, loss):
    """The parts of the model, by name, that a loss sends a gradient to."""
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name.split(".")[0]
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and gradient.abs().sum() > 0
    }


LOOKING = {"h_g", "h_l", "from_h_g", "from_h_l", "from_g", "from_h"}


class TestWhoLearnsFromWhat:
    def test_cross_entropy_teaches_all_but_the_place(self):
        model = fresh()
        cross_entropy, _ = model.losses(*batch())
        assert learners(model, cross_entropy) == LOOKING | {"f_a"}

    def test_rewards_teach_the_place_and_what_it_is_decided_from(self):
        model = fresh()
        _, rewards = model.losses(*batch())
        assert learners(model, rewards) == LOOKING | {"f_l"}

    def test_by_the_rule_of_mnih_rewards_teach_the_place_alone(self):
        model = fresh(MnihConfig(**{**vars(SMALL), "reinforced": "place"}))
        _, rewards = model.losses(*batch())
        assert learners(model, rewards) == {"f_l"}

    def test_policy_parameters_are_those_that_cross_entropy_does_not_teach(self):
        model = fresh()
        named = {id(p): name.split(".")[0] for name, p in model.named_parameters()}
        assert {named[id(p)] for p in model.policy_parameters()} == {"f_l"}


class TestEpisode:
    def test_matches_its_equations_computed_one_by_one(self):
        """One sample without noise, look after look, in numpy."""
        model = fresh().double()
        images, _ = batch(2)
        images = images.double()
        rollout = model.eval()(images)
        w = {name: p.detach().numpy() for name, p in model.named_parameters()}

        def layer(x, name, *, relu=True):
            out = w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0)
            return np.maximum(out, 0) if relu else out

        for b in range(2):
            image, place, h = images[b, 0].numpy(), np.zeros(2), None
            for t in range(3):
                x, y = np.round((place + 1) * 29 / 2 + 0.5).astype(int)
                assert_near(rollout.windows[b, t], [x - 2, y - 2, x + 2, y + 2])
                crops = [slow_crop(image, x, y, 4, scale).ravel() for scale in (1, 2)]
                what, where = layer(np.concatenate(crops), "h_g"), layer(place, "h_l")
                g = layer(what, "from_h_g", relu=False) + layer(where, "from_h_l", relu=False)
                z = layer(np.maximum(g, 0), "from_g", relu=False)
                h = np.maximum(z if h is None else z + w["from_h.weight"] @ h, 0)
                assert_near(rollout.logits[b, t], layer(h, "f_a", relu=False))
                raw = layer(layer(h, "f_l.layers.0"), "f_l.layers.2", relu=False)
                share = np.tanh(raw)
                place = place + share * np.where(share > 0, 1 - place, 1 + place)

    def test_samples_differ_after_the_first_look_and_stay_on_the_image(self):
        model = fresh(MnihConfig(**{**vars(SMALL), "sigma": (5.0, 5.0)}))
        seen = model.episode(batch()[0], 4, noisy=True)
        assert torch.equal(seen.places[:, :, 0], torch.zeros(5, 4, 2))
        assert (seen.places[:, 0, 1:] != seen.places[:, 1, 1:]).any()
        assert seen.places.abs().max() == 1

    def test_what_is_drawn_outside_the_image_counts_as_drawn(self, monkeypatch):
        """The nearest place on the image is looked at; its density would bias the estimate."""
        model = fresh(MnihConfig(**{**vars(SMALL), "sigma": (5.0, 5.0)}))
        given = []
        monkeypatch.setattr(
            "ramlib.baselines.mnih.log_density",
            lambda drawn, *rest: given.append(drawn) or log_density(drawn, *rest),
        )
        model.losses(*batch())
        assert given[0].abs().max() > 1
        seen = model.episode(batch()[0], 4, noisy=True)
        assert torch.equal(seen.places[:, :, 1:], seen.drawn.clamp(-1, 1))

    def test_without_noise_all_samples_are_the_same(self):
        seen = fresh().episode(batch()[0], 2, noisy=False)
        assert torch.equal(seen.logits[:, 0], seen.logits[:, 1])

    def test_returns_are_compared_within_an_image(self, monkeypatch):
        """An easy image's samples all earn much: that must not count for their places."""
        model = fresh()
        given = {}
        monkeypatch.setattr(
            "ramlib.baselines.mnih.reinforce", lambda p, r: given.update(p=p, r=r) or p.sum()
        )
        torch.manual_seed(1)
        model.losses(*batch())
        assert given["r"].shape == given["p"].shape == (5, 3, 2)
        assert given["r"].min() > 0
        assert given["r"].max() < 1


class TestTraining:
    def test_sigma_falls_geometrically_and_then_stays(self):
        model = fresh(MnihConfig(**{**vars(SMALL), "sigma": (0.4, 0.1), "anneal": 2}))
        found = []
        for _ in range(4):
            found.append(model.sigma.item())
            model.objective(*batch())
        assert_near(torch.tensor(found), [0.4, 0.2, 0.1, 0.1])

    def test_measuring_does_not_anneal(self):
        model = fresh().eval()
        model.objective(*batch())
        model(batch()[0])
        assert model.updates == 0

    def test_weights_keep_what_crops_look_like_and_how_far_sigma_fell(self):
        model, task = fresh(), ClutteredDigits("digit", distractors=1, size=30)
        model.adapt(task)
        model.objective(*batch())
        again = fresh()
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.crops.mean, model.crops.mean)
        assert again.sigma == model.sigma

    def test_who_starts_from_others_weights_keeps_their_standard_and_anneals_anew(self):
        first, then = fresh(), fresh()
        task = ClutteredDigits("digit", distractors=1, size=30)
        first.adapt(task)
        first.objective(*batch())
        then.load_state_dict(first.state_dict())
        then.adapt(ClutteredDigits("pair", distractors=8, size=30))
        assert torch.equal(then.crops.deviation, first.crops.deviation)
        assert then.updates == 0

    def test_learns_to_look_where_the_answer_is(self):
        """The middle is bright or dark, and says at which end the answer is; the other end lies.

        The first look sees the middle alone, so the second must go where that tells it to.
        """
        config = MnihConfig(
            glimpses=2, size=4, scales=(1,), hidden=32, samples=8, sigma=(0.5, 0.3), anneal=300
        )
        torch.manual_seed(0)
        model = config.build((1, 12, 40), 2)
        optimiser = torch.optim.Adam(model.parameters(), 5e-3)

        def draw(count):
            bright, label, lie = torch.randint(2, (3, count, 1, 1, 1))
            images = torch.zeros(count, 1, 12, 40)
            images[..., 18:22] = bright.float()
            images[..., :10] = torch.where(bright == 1, lie + 1, label + 1) / 2
            images[..., 30:] = torch.where(bright == 1, label + 1, lie + 1) / 2
            return images, label.flatten()

        for _ in range(300):
            optimiser.zero_grad()
            model.objective(*draw(32)).backward()
            optimiser.step()
        images, labels = draw(500)
        with torch.no_grad():
            right = (model.eval()(images).labels == labels).float().mean()
        assert right > 0.95


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"glimpses": 1}, "glimpses must be at least 2, got 1"),
            ({"samples": 1}, "samples must be at least 2, got 1"),
            ({"anneal": 0}, "anneal must be at least 1, got 0"),
            ({"sigma": (0.1,)}, "sigma must be two numbers above 0"),
            ({"sigma": (0.1, 0.0)}, "sigma must be two numbers above 0"),
        ],
    )
    def test_a_config_out_of_range(self, change, message):
        with pytest.raises(ValueError, match=message):
            MnihConfig(**change)

    @pytest.mark.usefixtures("as_installed")
    def test_an_unknown_rule(self):
        with pytest.raises(ValueError, match="reinforced must be core or place, got 'all'"):
            MnihConfig(reinforced="all")

    @pytest.mark.usefixtures("as_installed")
    def test_images_of_another_shape(self):
        with pytest.raises(ValueError, match=r"MnihModel: images must have shape \(B, 1, 30, 30\)"):
            fresh()(torch.zeros(2, 1, 30, 31))
