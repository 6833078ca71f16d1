"""What every model offers: the last look names the class, and bad images are refused."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from ramlib.interface import Classifier, Rollout


class Means(Classifier):
    """Two looks: the first scores the classes backwards, the last by each row's mean brightness."""

    def __init__(self, classes=4):
        super().__init__((1, classes, 3), classes)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images, *, noisy=None):
        scores = self.scale * images.mean((1, 3))
        return Rollout(torch.stack([-scores, scores], 1))


class Drops(Means):
    """Its first class wins, unless dropout takes it away."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.9)

    def forward(self, images, *, noisy=None):
        scores = self.drop(self.scale * torch.eye(4)[0].expand(len(images), -1))
        return Rollout((scores - torch.tensor([0.0, 0.5, 0.6, 0.7]))[:, None])


class Noisy(Means):
    """Scores by a script wherever it is noisy."""

    def __init__(self, script):
        super().__init__()
        self.script, self.left = script, iter(script)

    def forward(self, images, *, noisy=None):
        return Rollout(torch.tensor([[next(self.left)]])) if noisy else super().forward(images)


def bright_rows(*rows):
    images = torch.zeros(len(rows), 1, 4, 3)
    for image, row in zip(images, rows, strict=True):
        image[0, row] = 1
    return images


class TestPredict:
    def test_names_the_class_that_the_last_look_scores_highest(self):
        labels = Means().predict(bright_rows(2, 0, 3))
        assert labels.dtype == torch.int64
        assert labels.tolist() == [2, 0, 3]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_takes_images_of_any_floating_type(self, dtype):
        assert Means().predict(bright_rows(1, 2).to(dtype)).tolist() == [1, 2]

    def test_records_no_gradient_and_can_be_trained_against(self):
        model, images = Means(), bright_rows(1, 2)
        labels = model.predict(images.requires_grad_())
        assert not labels.requires_grad
        assert not labels.is_inference()
        model.loss(model(images), labels).backward()
        assert model.scale.grad is not None

    def test_answers_in_training_mode_as_in_evaluation_mode_and_goes_back(self):
        model = Drops().train()
        answers = {tuple(model.predict(torch.ones(4, 1, 4, 3)).tolist()) for _ in range(20)}
        assert answers == {(0, 0, 0, 0)}
        assert model.training
        assert model.drop.training

    def test_averages_probabilities_of_noisy_passes_and_not_scores(self):
        model = Noisy([[4.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
        softmax = [np.exp(row) / np.exp(row).sum() for row in np.array(model.script)]
        averaged = model.probabilities(bright_rows(0), passes=2)[0]
        assert averaged.tolist() == pytest.approx((sum(softmax) / 2).tolist(), abs=1e-6)
        # Without passes there is no noise.
        assert Noisy([]).predict(bright_rows(3)).tolist() == [3]

    def test_refuses_fewer_than_no_passes(self):
        with pytest.raises(ValueError, match="predict: passes must be at least 0, got -1"):
            Means().predict(bright_rows(1), passes=-1)

    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            (torch.zeros(2, 1, 3, 4), ValueError, "shape (B, 1, 4, 3), got (2, 1, 3, 4)"),
            (torch.zeros(0, 1, 4, 3), ValueError, "holds no image"),
            (torch.full((1, 1, 4, 3), 255.0), ValueError, "in [0, 1], got values from 255 to 255"),
            (torch.full((1, 1, 4, 3), torch.nan), ValueError, "must be finite"),
            (torch.zeros(1, 1, 4, 3, dtype=torch.uint8), TypeError, "divide 8-bit pixels by 255"),
        ],
        ids=["shape", "empty", "range", "nan", "integers"],
    )
    @pytest.mark.usefixtures("as_installed")
    def test_refuses_and_says_why(self, images, error, message):
        with pytest.raises(error, match=re.escape(message)):
            Means().predict(images)


class TestDefaults:
    def test_loss_is_the_cross_entropy_of_the_last_look(self):
        rollout = Rollout(torch.randn(3, 2, 4))
        last = rollout.logits[:, -1].numpy().astype(np.float64)
        labels = [1, 0, 3]
        by_hand = np.mean(
            [
                np.log(np.exp(row).sum()) - row[label]
                for row, label in zip(last, labels, strict=True)
            ]
        )
        loss = Means().loss(rollout, torch.tensor(labels))
        assert loss.item() == pytest.approx(by_hand, abs=1e-6)

    def test_no_policy_no_parameters_at_a_rate_of_their_own(self):
        assert Means().policy_parameters() == []

    def test_a_rollout_without_looks_has_logits_alone(self):
        rollout = Rollout(torch.zeros(1, 1, 4))
        rest = (rollout.windows, rollout.grids, rollout.glimpses, rollout.shifts, rollout.said)
        assert rest == (None,) * 5

    def test_a_model_without_a_forward_cannot_be_made(self):
        class Unfinished(Classifier):
            pass

        with pytest.raises(TypeError, match="abstract"):
            Unfinished((1, 4, 3), 4)


class TestLabels:
    def test_are_the_likeliest_classes_of_the_last_look(self):
        logits = torch.tensor([[[9.0, 0, 0], [0, 1, 0]], [[0, 9, 0], [0, 0, 1]]])
        assert Rollout(logits).labels.tolist() == [1, 2]

    def test_are_what_the_model_said_where_it_said_something(self):
        said = torch.tensor([[1, 10], [2, 3]])
        assert torch.equal(Rollout(torch.zeros(2, 1, 11), said=said).labels, said)
