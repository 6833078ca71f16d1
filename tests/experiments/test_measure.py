"""Shares with intervals, one loop for every task and model, and the cost of an answer."""

import re
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import pytest
import torch
from tiny import TINY

from ramlib.attention import Window
from ramlib.baselines.cnn import CNNConfig
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments.measure import Measure, measure, multiply_adds, share
from ramlib.interface import Classifier, Rollout
from ramlib.model import RAMConfig, RecurrentAttentionModel
from ramlib.models.reader import ReaderConfig
from ramlib.tasks import Batch, Task


class TestShare:
    @pytest.mark.parametrize(
        ("count", "n", "low", "high"),
        [(10, 100, 5.52, 17.44), (0, 10, 0, 27.75), (10, 10, 72.25, 100), (1, 2, 9.45, 90.55)],
    )
    def test_by_hand(self, count, n, low, high):
        measure = share(count, n)
        assert (measure.value, measure.n) == (100 * count / n, n)
        assert (measure.low, measure.high) == pytest.approx((low, high), abs=0.005)

    @pytest.mark.parametrize("n", [1, 7, 20_000])
    def test_ends_are_the_roots_of_wilsons_equation(self, n):
        """(p - q)^2 = z^2 q (1 - q) / n, solved for q."""
        z2 = NormalDist().inv_cdf(0.975) ** 2
        for count in {0, 1, n // 3, n}:
            p = count / n
            low, high = np.sort(np.roots([1 + z2 / n, -(2 * p + z2 / n), p * p]).real)
            measure = share(count, n)
            assert (measure.low, measure.high) == pytest.approx((100 * low, 100 * high), abs=1e-5)

    def test_interval_holds_the_value_and_stays_within_0_and_100(self):
        for count in range(0, 51):
            measure = share(count, 50)
            assert 0 <= measure.low <= measure.value <= measure.high <= 100

    def test_covers_the_truth_about_95_times_in_100(self):
        counts = np.random.default_rng(0).binomial(500, 0.03, size=4000)
        ends = {count: share(int(count), 500) for count in set(counts)}
        covered = np.mean([ends[count].low <= 3 <= ends[count].high for count in counts])
        assert 0.93 < covered < 0.98

    def test_as_dict_keeps_three_decimals(self):
        kept = share(1, 3).as_dict()
        assert kept == {"value": 33.333, "low": 6.149, "high": 79.234, "n": 3}

    @pytest.mark.parametrize(("count", "n"), [(1, 0), (-1, 5), (6, 5)])
    def test_refuses_more_hits_than_cases(self, count, n):
        message = f"share: 0 <= hits <= n must hold, got {count} of {n}"
        with pytest.raises(ValueError, match=message):
            share(count, n)


class Scripted(Classifier):
    """Says the number that stands in an image's pixel, and another one in noisy passes."""

    def __init__(self):
        super().__init__((1, 1, 1), 10)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.eval()

    def forward(self, images, *, noisy=None):
        answers = (10 * images.flatten() + (1 if noisy else 0)).round().long() % 10
        final = torch.nn.functional.one_hot(answers, 10).float()
        # The first look's scores are wrong everywhere, so whoever reads them is found out.
        return Rollout(torch.stack([-100 * final, final], 1))


@dataclass
class Own(Task):
    """A student's task: what it counts is its own."""

    image_shape: tuple = (1, 1, 1)
    classes: int = 10
    labels: tuple = (1, 2, 3, 4, 5)
    answers: tuple = (1, 0, 3, 0, 0)
    size: int = 2
    asked: list = field(default_factory=list)

    def sample(self, count, *, split="train", generator):
        raise AssertionError("measuring draws nothing")

    def batches(self, split, count=None, *, batch=500, device="cpu"):
        self.asked.append((split, count, torch.device(device)))
        labels = torch.tensor(self.labels)[:count]
        images = torch.tensor(self.answers)[:count, None, None, None] / 10
        for part in range(0, len(labels), self.size):
            rows = slice(part, part + self.size)
            yield Batch(images[rows].to(device), labels[rows].to(device))

    def judge(self, rollout, batch):
        odd = batch.labels % 2 == 1
        is_wrong = rollout.labels != batch.labels
        return {
            "error": (is_wrong, torch.ones_like(is_wrong)),
            "error_of_odd": (is_wrong, odd),
            "error_of_none": (is_wrong, torch.zeros_like(odd)),
        }

    def describe(self):
        return "five numbers"


class TestMeasure:
    def test_counts_by_hand_over_all_batches(self):
        """Wrong are 2, 4 and 5; of the odd ones 1, 3 and 5, one is wrong."""
        assert measure(Own(), Scripted()) == {"error": share(3, 5), "error_of_odd": share(1, 3)}

    @pytest.mark.parametrize("size", [1, 3, 5])
    def test_does_not_depend_on_how_the_images_are_batched(self, size):
        assert measure(Own(size=size), Scripted()) == measure(Own(), Scripted())

    def test_asks_for_the_split_and_the_count_on_the_models_device(self):
        task = Own()
        found = measure(task, Scripted(), "test", 2)
        assert found["error"] == share(1, 2)
        assert task.asked == [("test", 2, torch.device("cpu"))]

    def test_counts_nothing_outside_what_a_share_is_among(self):
        class Careless(Own):
            def judge(self, rollout, batch):
                every = torch.ones_like(batch.labels, dtype=torch.bool)
                return {"error": (every, batch.labels == 1)}

        assert measure(Careless(), Scripted()) == {"error": share(1, 1)}

    def test_noisy_passes_answer_where_they_are_asked_for(self):
        """The noisy passes say one more than is asked, which is right nowhere but at 5."""
        task = Own(labels=(1, 2, 3, 4, 5), answers=(1, 2, 3, 4, 4))
        assert measure(task, Scripted())["error"] == share(1, 5)
        assert measure(task, Scripted(), passes=3)["error"] == share(4, 5)

    def test_a_task_that_judges_nothing_of_its_own_counts_wrong_labels(self):
        class Plain(Own):
            judge = Task.judge

        assert measure(Plain(), Scripted()) == {"error": share(3, 5)}

    def test_judges_cases_that_are_not_one_an_image(self):
        class Halves(Own):
            def judge(self, rollout, batch):
                is_wrong = (rollout.labels != batch.labels)[:, None].expand(-1, 2)
                return {"error": (is_wrong, torch.tensor([True, False]).expand_as(is_wrong))}

        assert measure(Halves(), Scripted()) == {"error": share(3, 5)}

    @pytest.mark.parametrize("target", ["digit", "pair"])
    def test_a_model_that_does_not_look_is_measured_too(self, target):
        task = ClutteredDigits(target, size=40)
        cnn = CNNConfig((2,), hidden=4).build(task.image_shape, task.classes).eval()
        found = measure(task, cnn, count=8)
        assert found["error"].n == 8
        assert not {"missed", "visited_both"} & set(found)

    def test_a_model_that_looks_is_judged_by_its_windows_as_well(self):
        found = measure(TINY.task, TINY.build().eval(), count=8)
        assert {"error", "missed"} <= set(found)
        assert isinstance(found["missed"], Measure)

    def test_refuses_a_model_in_training_mode(self):
        with pytest.raises(ValueError, match=re.escape("call model.eval() first")):
            measure(Own(), Scripted().train())


def test_multiply_adds_by_hand():
    """T = 2 glimpses of N = 4, 8 units, a 20x20 image halved for the context, 10 classes."""
    t, n, h, side, wide = 2, 4, 8, 20, 256
    config = RAMConfig(glimpses=t, size=n, hidden=h, shrink=2, window=Window(0.5))
    model = RecurrentAttentionModel(config, (1, side, side), 10)
    context = 5 * 5 * 9 * 16 + 3 * 3 * 9 * 16 * 32 + 2 * 2 * 9 * 32 * 64 + 64 * 2 * 2 * h
    clue = h * 3 * h  # projected once
    read = n * side * side + n * side * n
    eye = n * n * wide + wide * h
    first_layer = h * 3 * h  # from the features, at every look
    # What comes from a state is not computed at the first look, where all states are zeros:
    # h2 from h1 and from itself, h1 from itself.
    recalled = 3 * h * 3 * h
    policy = 6 * h
    classify = h * wide + wide * 10
    per_look = read + eye + first_layer + policy + classify
    expected = context + clue + t * per_look + (t - 1) * recalled
    assert multiply_adds(model, torch.zeros(1, 1, side, side)) == expected


def test_multiply_adds_are_the_mean_over_images_each_by_itself():
    class Stops(torch.nn.Module):
        """Looks as often as its image says."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4, 4))

        def forward(self, images):
            for _ in range(int(images.max())):
                images.flatten(1) @ self.weight

    images = torch.tensor([1.0, 4.0])[:, None, None, None].expand(2, 1, 2, 2)
    assert multiply_adds(Stops(), images) == (1 + 4) * 4 * 4 / 2


@pytest.mark.parametrize(("answer", "objects"), [(10, 1), (0, 6)])
def test_multiply_adds_of_a_reader_are_those_of_the_objects_it_reads(answer, objects):
    t, n, h, side, wide = 2, 4, 8, 20, 256
    config = ReaderConfig(glimpses=t, size=n, hidden=h, context=False, window=Window(0.5))
    reader = config.build((1, side, side), 11).eval()
    with torch.no_grad():
        reader.f_class[-1].bias[answer] = 100
    read = n * side * side + n * side * n
    eye = n * n * wide + wide * h
    classify = h * wide + wide * 11
    per_look = read + eye + h * 3 * h + 6 * h + classify
    recalled = 3 * h * 3 * h
    # Every look is scored to be shown, and an object once more to see whether it is the end.
    expected = objects * (t * per_look + classify) + (objects * t - 1) * recalled
    assert multiply_adds(reader, torch.zeros(3, 1, side, side)) == expected
