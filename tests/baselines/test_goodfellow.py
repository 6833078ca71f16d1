"""Reading at a glance: the length and the digits at once, behind the interface of the readers."""

import re

import numpy as np
import pytest
import torch
from oracles import convolve, dense
from tolerances import assert_near

from ramlib.baselines.goodfellow import EndingCNN, GoodfellowCNN, NumberCNNConfig
from ramlib.labels import STOP
from ramlib.tasks import wrong

SHAPE = (1, 8, 12)
LABELS = torch.tensor([[4, 7, STOP, STOP, STOP, STOP], [1, 2, 3, 4, 5, STOP]])
each_end = pytest.mark.parametrize("end", ["length", "end"])


def build(end="length", **changes):
    torch.manual_seed(0)
    config = NumberCNNConfig(end=end, stages=((2,), (3, 2)), hidden=5, **changes)
    return config.build(SHAPE, STOP + 1)


def scores(seed=0, batch=2, spread=3.0):
    return spread * torch.randn(batch, 6, STOP + 1, generator=torch.Generator().manual_seed(seed))


def log_softmax(row):
    return row - np.log(np.exp(row - row.max()).sum()) - row.max()


def says(model, answer, monkeypatch):
    """A model that gives the same scores to every image."""
    monkeypatch.setattr(model.dense, "forward", lambda features: answer.flatten(1)[: len(features)])
    return model.eval()


class TestNetwork:
    def test_matches_its_layers_computed_one_by_one(self):
        model = build().double().eval()
        for layer in model.convolutions:
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
        model.prepare.mean_image.uniform_(0, 255)
        image = 255 * torch.rand(1, *SHAPE, dtype=torch.float64)
        x = ((image - model.prepare.mean_image) / 128)[0].numpy()
        modules = iter(model.convolutions)
        for module in modules:
            if isinstance(module, torch.nn.MaxPool2d):
                x = x.reshape(len(x), 4, 2, 6, 2).max((2, 4))
                continue
            norm = next(modules)
            # Normalising what a convolution gives is another convolution.
            factor = 1 / np.sqrt(norm.running_var.numpy() + norm.eps)
            weight = module.weight.detach().numpy() * factor[:, None, None, None]
            x = convolve(x, weight, -norm.running_mean.numpy() * factor, 1)
            assert isinstance(next(modules), torch.nn.ReLU)
        weights = [p.detach().numpy() for p in model.dense.parameters()]
        x = dense(dense(x.ravel(), *weights[:2], relu=True), *weights[2:], relu=False)
        assert_near(model(image).logits[0], x.reshape(6, 11))

    def test_is_goodfellows_at_a_quarter_of_its_channels(self):
        stages = NumberCNNConfig().stages
        channels = [width for stage in stages for width in stage]
        assert [4 * width for width in channels] == [48, 64, 128, 160, 192, 192, 192, 192]

    def test_has_logits_and_nothing_that_it_looked_at(self):
        rollout = build()(torch.zeros(3, *SHAPE))
        assert rollout.logits.shape == (3, 6, 11)
        assert rollout.grids is None
        assert rollout.glimpses is None
        assert build().policy_parameters() == []

    def test_passes_with_noise_are_all_the_same(self):
        model, images = build().eval(), 255 * torch.rand(2, *SHAPE)
        assert torch.equal(model.probabilities(images), model.probabilities(images, passes=3))

    def test_mean_image_comes_from_the_task(self, as_installed):
        class Task:
            def mean_image(self):
                return torch.arange(96.0).view(SHAPE)

        model = build()
        model.adapt(Task())
        assert torch.equal(model.prepare.mean_image, torch.arange(96.0).view(SHAPE))


class TestLength:
    def test_the_likeliest_number_of_all_is_read(self, monkeypatch):
        """Against the probability of each of the 111,110 numbers of one to five digits."""
        answers = scores(batch=20)
        read = says(build(), answers, monkeypatch).read(torch.zeros(20, *SHAPE))
        for own, text in zip(answers.double().numpy(), read, strict=True):
            length = log_softmax(own[0, 1:6])
            total, best = np.zeros(()), {}
            for n in range(5):
                total = total[..., None] + log_softmax(own[n + 1, :10])
                place = np.unravel_index(total.argmax(), total.shape)
                best[length[n] + total.max()] = "".join(map(str, place))
            assert text == best[max(best)]

    def test_length_alone_does_not_decide(self, monkeypatch):
        """Two digits are a little likelier than one, but nobody knows the second."""
        answer = torch.full((1, 6, 11), -50.0)
        answer[0, 0, 1:3] = torch.tensor([0.0, 0.5])
        answer[0, 1, 7] = 0.0
        answer[0, 2, :10] = 0.0
        assert says(build(), answer, monkeypatch).read(torch.zeros(1, *SHAPE)) == ["7"]

    def test_scores_that_stand_for_nothing_change_nothing(self, monkeypatch):
        answers = scores()
        loud = answers.clone()
        loud[:, 0, [0, *range(6, 11)]] = 90.0
        loud[:, 1:, STOP] = 90.0
        model = build()
        assert torch.equal(model.chances(loud), model.chances(answers))
        rollouts = [type(model(torch.zeros(1, *SHAPE)))(each) for each in (loud, answers)]
        assert torch.equal(*(model.loss(rollout, LABELS) for rollout in rollouts))

    def test_loss_by_hand(self):
        model, answers = build(), scores()
        expected = 0.0
        for own, digits in zip(answers.double().numpy(), ([4, 7], [1, 2, 3, 4, 5]), strict=True):
            expected -= log_softmax(own[0, 1:6])[len(digits) - 1]
            for place, digit in enumerate(digits):
                expected -= log_softmax(own[place + 1, :10])[digit]
        rollout = type(model(torch.zeros(1, *SHAPE)))(answers)
        assert_near(model.loss(rollout, LABELS), expected / 2)


class TestEnd:
    def test_reads_until_the_first_end(self, monkeypatch):
        answer = torch.zeros(1, 6, 11)
        for place, label in enumerate([3, 1, STOP, 5, STOP, 6]):
            answer[0, place, label] = 5.0
        assert says(build("end"), answer, monkeypatch).read(torch.zeros(1, *SHAPE)) == ["31"]

    def test_loss_by_hand(self):
        model, answers = build("end"), scores()
        expected = 0.0
        asked = ([4, 7, STOP], [1, 2, 3, 4, 5, STOP])
        for own, labels in zip(answers.double().numpy(), asked, strict=True):
            expected -= sum(log_softmax(own[i])[label] for i, label in enumerate(labels))
        rollout = type(model(torch.zeros(1, *SHAPE)))(answers)
        assert_near(model.loss(rollout, LABELS), expected / 2)


@each_end
def test_wrong_is_any_digit_or_the_length(end, monkeypatch):
    images = torch.zeros(40, *SHAPE)
    model = says(build(end), scores(batch=40, spread=1.0), monkeypatch)
    labels = model.predict(images).clone()
    labels[:10, 0] = (labels[:10, 0] + 1) % 10
    is_wrong, _ = wrong(model(images).labels, labels)
    assert is_wrong.tolist() == [True] * 10 + [False] * 30


@each_end
def test_learns_a_batch_by_heart(end):
    model = build(end, dropout=0.0)
    images = 255 * torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        optimiser.zero_grad()
        model.objective(images, LABELS).backward()
        optimiser.step()
    assert model.eval().read(images) == ["47", "12345"]


def test_each_end_has_a_model_of_its_own():
    assert [type(build(end)) for end in ("length", "end")] == [GoodfellowCNN, EndingCNN]


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"end": "comma"}, "end must be one of length, end, got 'comma'"),
        ({"stages": ()}, "every stage must have a convolution, got stages=()"),
        ({"stages": ((4,), ())}, "every stage must have a convolution, got stages=((4,), ())"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
    ],
)
def test_refuses_settings_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=re.escape(f"NumberCNNConfig: {message}")):
        NumberCNNConfig(**wrong)


@each_end
def test_refuses_other_classes_and_other_images(end):
    with pytest.raises(ValueError, match=r"CNN: classes must be 11, the digits and the end, got 9"):
        NumberCNNConfig(end=end).build(SHAPE, 9)
    with pytest.raises(ValueError, match=r"CNN: .*shape"):
        build(end)(torch.zeros(1, 1, 9, 12))
