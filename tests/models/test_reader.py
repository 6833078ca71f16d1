"""Reading a number: the same looks as the model's, the end learnt, two readings joined."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerances import assert_near
from torch import nn

from ramlib import tasks
from ramlib.attention import Window
from ramlib.data import house_numbers
from ramlib.data.house_numbers import HouseNumbers
from ramlib.experiments import training, weights
from ramlib.experiments.recipe import Recipe
from ramlib.experiments.weights import load_weights, save_weights, start_from
from ramlib.glimpse import GlimpseGrid, read_glimpse
from ramlib.interface import Rollout
from ramlib.labels import (
    OBJECTS,
    count_digits,
    decode_numbers,
    join,
    mirror,
    to_text,
)
from ramlib.model import RAMConfig, RecurrentAttentionModel
from ramlib.models.reader import (
    HouseNumberReader,
    JoinedReader,
    JoinedReaderConfig,
    ReaderConfig,
)

E = 10  # the end
SHAPE = (1, 16, 20)
QUIET = ReaderConfig(
    glimpses=2,
    size=4,
    hidden=8,
    shrink=2,
    window=Window(0.35, 0.12, 0.5),
    alpha=0.0,
    dropout=0.0,
    recurrent_dropout=0.0,
)


def reader_of(**changes):
    """A reader whose policy looks about, and which says all classes."""
    reader = HouseNumberReader(replace(QUIET, **changes), SHAPE, 11)
    for parameter in reader.parameters():
        nn.init.normal_(parameter, std=1.0)
    nn.init.constant_(reader.f_class[-1].bias[E:], 3.0)
    reader.prepare.mean_image.copy_(torch.rand(SHAPE) * 255)
    return reader


def images_of(batch=6):
    """Spots, which a few blurred looks can tell apart."""
    return nn.functional.interpolate(torch.rand(batch, 1, 4, 5), SHAPE[1:]) * 255


LABELS = torch.tensor(
    [
        [3, 1, E, E, E, E],
        [7, E, E, E, E, E],
        [0, 0, 5, 9, 2, E],
        [4, 4, 8, E, E, E],
        [1, E, E, E, E, E],
        [2, 6, 5, 0, E, E],
    ]
)


class TestReader:
    def test_looks_like_the_plain_model_with_as_many_glimpses(self):
        """Eighteen glimpses at pixels that are prepared here; six objects of three glimpses."""
        reader = reader_of(glimpses=3).double()
        plain = RecurrentAttentionModel(
            RAMConfig(glimpses=18, size=4, hidden=8, shrink=2, window=QUIET.window), SHAPE, 11
        ).double()
        state = reader.state_dict()
        mean = state.pop("prepare.mean_image")
        plain.load_state_dict(state)
        images = images_of().double()
        expected, rollout = plain((images - mean) / 128), reader(images)
        assert_near(rollout.logits, expected.logits)
        assert_near(rollout.grids.c_x, expected.grids.c_x)
        assert_near(rollout.glimpses, expected.glimpses)
        assert_near(rollout.shifts, expected.shifts)

    def test_an_object_is_what_the_last_look_at_it_says(self):
        reader, images = reader_of(glimpses=3).eval(), images_of()
        logits = reader(images).logits
        chances = reader.in_own_order(images)
        assert_near(chances[:, 0], logits[:, 2].softmax(-1))

    def test_stops_looking_when_all_numbers_have_ended(self):
        reader = reader_of().eval()
        with torch.no_grad():
            reader.f_class[-1].bias[E] = 1000.0
        assert reader(images_of()).logits.shape == (6, 2, 11)
        with torch.no_grad():
            reader.f_class[-1].bias[E] = -1000.0
        assert reader(images_of()).logits.shape == (6, 12, 11)

    def test_reads_on_in_training_mode(self):
        reader = reader_of().train()
        with torch.no_grad():
            reader.f_class[-1].bias[E] = 1000.0
        assert reader(images_of()).logits.shape == (6, 12, 11)

    def test_reads_one_image_as_it_reads_it_in_a_batch(self):
        reader, images = reader_of().double().eval(), images_of(12).double()
        together = reader.probabilities(images)
        assert len(set(count_digits(decode_numbers(together)).tolist())) > 1
        for image, chances in zip(images, together, strict=True):
            assert_near(reader.probabilities(image[None])[0], chances)

    def test_gives_strings_and_labels_that_agree(self):
        reader, images = reader_of().eval(), images_of(12)
        labels = reader.predict(images)
        assert labels.shape == (12, OBJECTS)
        assert labels.dtype == torch.int64
        assert reader.read(images) == to_text(labels)
        assert all(1 <= len(text) <= 5 for text in reader.read(images))

    def test_the_other_direction_reads_in_a_mirror(self):
        there, images = reader_of().eval(), images_of(20)
        back = HouseNumberReader(replace(QUIET, direction="right-to-left"), SHAPE, 11).eval()
        # A mean image that no mirror leaves as it is.
        there.prepare.mean_image.copy_(images_of(21)[20])
        back.load_state_dict(there.state_dict())
        back.prepare.mean_image.copy_(there.prepare.mean_image.flip(-1))
        mirrored = images.flip(-1)
        assert back.read(mirrored) == [text[::-1] for text in there.read(images)]
        assert_near(back.in_own_order(mirrored), there.in_own_order(images))

    def test_looks_in_a_mirror_are_told_on_the_crop_itself(self):
        back = HouseNumberReader(replace(QUIET, direction="right-to-left"), SHAPE, 11).eval()
        for parameter in back.policy_parameters():
            nn.init.normal_(parameter, std=0.5)
        images = images_of(3)
        looks = back(images)
        crops = back.preprocess(images).flip(-1)
        for t in range(looks.grids.shape[1]):
            seen = read_glimpse(crops, looks.grids[:, t], back.config.size)
            assert_near(seen, looks.glimpses[:, t], rtol=0, atol=1e-4)
        moved = looks.grids.c_x.diff(dim=1)
        assert moved.abs().max() > 1e-3
        assert_near(looks.shifts[:, 1:, 0], moved)
        assert_near(looks.shifts[:, 1:, 1], looks.grids.c_y.diff(dim=1))

    def test_wrong_is_where_any_digit_or_the_length_differs(self):
        for direction in ("left-to-right", "right-to-left"):
            reader, images = reader_of(direction=direction).eval(), images_of(20)
            truth = reader.predict(images).clone()
            truth[3, 0] = (truth[3, 0] + 1) % 10
            truth[5] = torch.tensor([1, 2, 3, 4, 5, E])
            wrong, _ = tasks.wrong(reader(images).labels, truth)
            texts = zip(reader.read(images), to_text(truth), strict=True)
            assert wrong.tolist() == [read != true for read, true in texts]
            assert wrong[3]


class TestPasses:
    def test_a_single_pass_is_without_noise(self):
        reader, images = (
            reader_of(alpha=0.1, dropout=0.5, recurrent_dropout=0.5).eval(),
            images_of(),
        )
        assert torch.equal(reader.probabilities(images), reader.probabilities(images))

    def test_several_are_the_mean_of_noisy_ones(self):
        reader, images = reader_of(alpha=0.3).eval(), images_of()
        torch.manual_seed(5)
        averaged = reader.in_own_order(images, passes=3)
        torch.manual_seed(5)
        ones = [reader.in_own_order(images, passes=1) for _ in range(3)]
        assert not torch.equal(ones[0], ones[1])
        assert_near(averaged, sum(ones) / 3)

    def test_noise_comes_without_dropout(self):
        """With alpha at 0, a noisy pass is a quiet one, whatever the dropout."""
        reader, images = (
            reader_of(alpha=0.0, dropout=0.5, recurrent_dropout=0.5).eval(),
            images_of(),
        )
        assert torch.equal(reader.probabilities(images, passes=2), reader.probabilities(images))


class TestLoss:
    def rollout(self, scores):
        """One look per object; the reader's own scores are the first of every two."""
        logits = scores.repeat_interleave(2, 1)
        nought = torch.zeros(logits.shape[:2])
        return Rollout(logits, grids=GlimpseGrid(*[nought] * 6))

    def test_of_two_numbers_by_hand(self):
        """Scores of 2 for the right class and 0 for ten others: a number of n digits has n + 1."""
        labels = LABELS[:2]
        scores = 2 * torch.eye(11)[labels]
        value = reader_of().loss(self.rollout(scores), labels)
        each = math.log(1 + 10 * math.exp(-2))
        assert value.item() == pytest.approx((3 * each + 2 * each) / 2)

    def test_asks_nothing_after_the_end(self):
        scores = torch.randn(6, OBJECTS, 11)
        value = reader_of().loss(self.rollout(scores), LABELS)
        for row, count in enumerate(count_digits(LABELS)):
            scores[row, count + 1 :] = torch.randn(11)
        assert reader_of().loss(self.rollout(scores), LABELS).item() == pytest.approx(value.item())

    @pytest.mark.parametrize("direction", ["left-to-right", "right-to-left"])
    def test_objective_is_the_loss_value_and_gradient(self, direction):
        """It looks at each image only as often as its label needs; the loss looks at all."""
        reader, images = reader_of(direction=direction).double().train(), images_of().double()
        whole = reader.loss(reader(images), LABELS)
        needed = reader.objective(images, LABELS)
        assert needed.item() == pytest.approx(whole.item())
        parameters = list(reader.parameters())
        ours, theirs = (torch.autograd.grad(value, parameters) for value in (needed, whole))
        for own, other in zip(ours, theirs, strict=True):
            assert_near(own, other)

    def test_objective_looks_no_more_often_than_it_must(self):
        reader = reader_of(glimpses=3).train()
        seen = []
        reader.f_glimpse.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        reader.objective(images_of(), LABELS)
        # Of six numbers, 6, 6, 4, 3, 2 and 1 have a first to sixth object: five digits and the end.
        assert seen == [n for n in (6, 6, 4, 3, 2, 1) for _ in range(3)]

    def test_the_other_direction_learns_the_digits_in_the_opposite_order(self):
        there = reader_of().double()
        back = HouseNumberReader(replace(QUIET, direction="right-to-left"), SHAPE, 11).double()
        back.load_state_dict(there.state_dict())
        back.prepare.mean_image.copy_(there.prepare.mean_image.flip(-1))
        images = images_of().double()
        mirrored = mirror(LABELS, count_digits(LABELS))
        assert_near(back.objective(images.flip(-1), LABELS), there.objective(images, mirrored))

    def test_reaches_every_parameter(self):
        for eye in ("dense", "conv-3", "conv-5"):
            reader = HouseNumberReader(replace(QUIET, eye=eye), SHAPE, 11).double()
            reader.objective(images_of().double(), LABELS).backward()
            for name, parameter in reader.named_parameters():
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.abs().max() > 0, name

    def test_training_is_noisy_and_evaluation_is_not(self):
        reader, images = reader_of(alpha=0.1, dropout=0.5, recurrent_dropout=0.5), images_of()
        values = [reader.train().objective(images, LABELS).item() for _ in range(2)]
        assert values[0] != values[1]
        values = [reader.eval().objective(images, LABELS).item() for _ in range(2)]
        assert values[0] == values[1]

    def test_mixed_precision_stays_near_single(self):
        reader, images = reader_of().eval(), images_of()
        plain = reader.objective(images, LABELS)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = reader.objective(images, LABELS)
        assert mixed.item() == pytest.approx(plain.item(), rel=0.1)


class TestPreprocessing:
    def test_subtracts_the_mean_image_and_divides_by_128(self):
        reader, images = reader_of(), images_of()
        expected = (images.numpy() - reader.prepare.mean_image.numpy()) / 128
        assert_near(reader.preprocess(images), expected)

    def test_mean_image_comes_from_the_task(self, as_installed):
        class Task:
            def mean_image(self):
                return torch.arange(320.0).view(SHAPE)

        reader = reader_of()
        reader.adapt(Task())
        assert torch.equal(reader.prepare.mean_image, torch.arange(320.0).view(SHAPE))

    def test_mean_image_is_stored_with_the_weights(self, tmp_path):
        reader, other = reader_of(), reader_of()
        save_weights(reader, tmp_path / "w")
        load_weights(other, tmp_path / "w")
        assert torch.equal(other.prepare.mean_image, reader.prepare.mean_image)
        images = images_of(20)
        assert other.eval().read(images) == reader.eval().read(images)


class TestSwitch:
    @pytest.mark.parametrize("eye", ["conv-3", "conv-5"])
    def test_of_the_glimpse_network_keeps_all_other_weights(self, eye):
        simple, full = reader_of(eye="dense"), reader_of(eye=eye)
        fresh = start_from(full, simple.state_dict())
        assert all(name.startswith("f_glimpse.") for name in fresh)
        assert set(fresh) == {f"f_glimpse.{name}" for name in full.f_glimpse.state_dict()}
        for name, value in simple.state_dict().items():
            if not name.startswith("f_glimpse."):
                assert torch.equal(full.state_dict()[name], value)

    def test_the_other_direction_may_start_from_the_first(self):
        there, back = reader_of(), reader_of(direction="right-to-left")
        assert start_from(back, there.state_dict()) == []


class TestJoinedReader:
    def parts(self):
        return reader_of().eval(), reader_of(direction="right-to-left").eval()

    def test_joins_what_its_parts_read(self):
        rightwards, leftwards = self.parts()
        joined, images = JoinedReader.of(rightwards, leftwards), images_of(30)
        expected = join(rightwards.in_own_order(images), leftwards.in_own_order(images))
        assert_near(joined.probabilities(images), expected)
        assert joined.read(images) == to_text(decode_numbers(expected))

    def test_keeps_the_precision_and_the_device_of_its_parts(self):
        rightwards, leftwards = (part.double() for part in self.parts())
        state = JoinedReader.of(rightwards, leftwards).state_dict()
        assert {value.dtype for value in state.values()} == {torch.float64}
        far = JoinedReader.of(rightwards.to("meta"), leftwards.to("meta"))
        assert all(value.is_meta for value in far.state_dict().values())

    def test_is_never_longer_than_either_part(self):
        rightwards, leftwards = self.parts()
        images = images_of(30)
        reads = JoinedReader.of(rightwards, leftwards).read(images)
        parts = zip(rightwards.read(images), leftwards.read(images), strict=True)
        assert [len(text) for text in reads] == [min(map(len, texts)) for texts in parts]

    def test_of_one_reader_and_its_mirror_reads_what_the_one_reads_twice(self):
        """Both say the same from their side: what is left is the digits that both sides share."""
        rightwards, leftwards = self.parts()
        rightwards.prepare.mean_image.fill_(128)
        leftwards.load_state_dict(rightwards.state_dict())
        images = images_of(10)
        images = (images + images.flip(-1)) / 2  # the same in a mirror
        lengths = [len(text) for text in rightwards.read(images)]
        assert len(set(lengths)) > 1
        reads = JoinedReader.of(rightwards, leftwards).read(images)
        assert [len(text) for text in reads] == lengths

    def test_weights_come_back(self, tmp_path):
        joined = JoinedReader.of(*self.parts())
        save_weights(joined, tmp_path / "w")
        again = JoinedReaderConfig(QUIET).build(SHAPE, 11).eval()
        load_weights(again, tmp_path / "w")
        images = images_of(10)
        assert again.read(images) == joined.read(images)

    def test_rollout_holds_the_looks_of_both(self):
        rightwards, leftwards = self.parts()
        images = images_of()
        parts = [rightwards(images), leftwards(images)]
        whole = JoinedReader.of(rightwards, leftwards)(images)
        for name in ("logits", "windows", "glimpses", "shifts"):
            assert_near(getattr(whole, name), torch.cat([getattr(p, name) for p in parts], 1))
        assert whole.grids.shape == whole.logits.shape[:2]
        assert torch.equal(whole.labels, JoinedReader.of(rightwards, leftwards).predict(images))

    def test_averages_noisy_passes_of_both(self):
        rightwards = reader_of(alpha=0.1).eval()
        leftwards = reader_of(alpha=0.1, direction="right-to-left").eval()
        joined, images = JoinedReader.of(rightwards, leftwards), images_of()
        torch.manual_seed(3)
        chances = joined.probabilities(images, passes=2)
        torch.manual_seed(3)
        expected = join(*(r.in_own_order(images, passes=2) for r in (rightwards, leftwards)))
        assert_near(chances, expected)

    def test_policy_parameters_are_those_of_both(self):
        joined = JoinedReader.of(*self.parts())
        ours = {id(parameter) for parameter in joined.policy_parameters()}
        assert ours == {id(p) for n, p in joined.named_parameters() if ".f_ext." in n}

    def test_refuses_two_of_one_direction(self):
        with pytest.raises(ValueError, match="must read left-to-right and right-to-left, got"):
            JoinedReader.of(reader_of(), reader_of())

    def test_refuses_two_that_are_not_alike(self):
        with pytest.raises(ValueError, match="differ in more than their direction"):
            JoinedReader.of(reader_of(), reader_of(direction="right-to-left", glimpses=3))


class TestTraining:
    RECIPE = Recipe(
        name="tiny-numbers",
        row="Tiny",
        task=HouseNumbers(),
        model=replace(QUIET, size=6, alpha=0.1, dropout=0.5, recurrent_dropout=0.5, shrink=4),
        updates=4,
        batch=4,
        warmup=1,
        precision="32-true",
    )

    @pytest.fixture(autouse=True)
    def _small(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)
        monkeypatch.setattr(training, "VALIDATION_BATCH", 8)
        house_numbers.load.cache_clear()

    def test_a_resumed_training_ends_at_the_weights_of_an_uninterrupted_one(self, tmp_path):
        whole, finished = training.train(self.RECIPE, tmp_path / "one", quiet=True)
        assert finished
        step = training.Training.training_step

        def until_the_power_cut(module, *arguments):
            if module.global_step == 2:
                raise RuntimeError("power cut")
            return step(module, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.Training, "training_step", until_the_power_cut)
            with pytest.raises(RuntimeError, match="power cut"):
                training.train(self.RECIPE, tmp_path / "two", quiet=True, checkpoint_every=2)
        again, finished = training.train(
            self.RECIPE, tmp_path / "two", resume=True, quiet=True, checkpoint_every=2
        )
        assert finished
        assert again.trainer.fit_loop.epoch_loop.total_batch_idx >= 3
        for name, value in whole.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[name], value), name
        assert_near(whole.model.prepare.mean_image, self.RECIPE.task.mean_image())

    def test_the_full_reader_starts_from_the_simple_one_among_the_runs(self, tmp_path, monkeypatch):
        monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
        monkeypatch.setitem(weights.experiments.RECIPES, "tiny-numbers", self.RECIPE)
        simple = replace(self.RECIPE, seed=5).build()
        save_weights(simple, tmp_path / "tiny-numbers" / "weights.safetensors")
        full = replace(
            self.RECIPE, start="tiny-numbers", model=replace(self.RECIPE.model, eye="conv-3")
        )
        model = training.Training(full, tmp_path).model
        assert torch.equal(
            model.f_rec.layer1.from_state.weight, simple.f_rec.layer1.from_state.weight
        )
        assert_near(model.prepare.mean_image, self.RECIPE.task.mean_image())

    def test_weights_ship_by_the_recipes_name(self, tmp_path, monkeypatch):
        monkeypatch.setattr(weights, "FOLDER", tmp_path)
        monkeypatch.setitem(weights.experiments.RECIPES, "tiny-numbers", self.RECIPE)
        save_weights(
            self.RECIPE.build(), tmp_path / "tiny-numbers.safetensors", precision="float16"
        )
        reader = weights.load("tiny-numbers")
        batch = self.RECIPE.task.sample(3, split="test", generator=torch.Generator())
        assert len(reader.read(batch.images)) == 3


def test_bytes_are_grey_levels_too():
    reader, images = reader_of().eval(), images_of().round()
    assert torch.equal(reader.predict(images.to(torch.uint8)), reader.predict(images))
    assert reader.read(images.to(torch.uint8)) == reader.read(images)


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    @pytest.mark.parametrize("call", ["predict", "read"])
    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            (torch.zeros(2, 1, 20, 16), ValueError, "images must have shape (B, 1, 16, 20), got"),
            (torch.zeros(0, *SHAPE), ValueError, "images holds no image"),
            (torch.full((1, *SHAPE), 256.0), ValueError, "must be finite and in [0, 255], got"),
            (torch.full((1, *SHAPE), -1.0), ValueError, "must be finite and in [0, 255], got"),
            (torch.full((1, *SHAPE), float("nan")), ValueError, "must be finite and in [0, 255]"),
            (
                torch.zeros(1, *SHAPE, dtype=torch.int64),
                TypeError,
                "must be floating point in [0, 255], got torch.int64; call .float() on them first",
            ),
            (
                torch.full((1, *SHAPE), 0.9),
                ValueError,
                "got none above 0.9; multiply pixels in [0, 1]",
            ),
            (np.zeros((1, *SHAPE)), TypeError, "images must be a torch.Tensor, got ndarray"),
        ],
    )
    def test_refuses_what_is_no_batch_of_grey_levels(self, images, error, message, call):
        joined = JoinedReader.of(reader_of(), reader_of(direction="right-to-left")).eval()
        for reader in (reader_of().eval(), joined):
            with pytest.raises(error, match=re.escape(message)):
                getattr(reader, call)(images)

    def test_refuses_fewer_than_no_passes(self):
        with pytest.raises(ValueError, match="predict: passes must be at least 0, got -1"):
            reader_of().eval().read(images_of(), passes=-1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"direction": "upwards"},
                "direction must be one of left-to-right, right-to-left, got",
            ),
            ({"supervision": "all"}, "asked after the last look at each object"),
            ({"penalised_step": 1}, "no look is penalised"),
            ({"eye_width": 0}, "eye_width must be at least 1, got 0"),
        ],
    )
    def test_refuses_a_config_that_is_no_readers(self, changes, message):
        with pytest.raises(ValueError, match=message):
            replace(QUIET, **changes)

    def test_refuses_other_classes(self):
        with pytest.raises(ValueError, match="classes must be 11, the digits and the end, got 10"):
            HouseNumberReader(QUIET, SHAPE, 10)


def test_a_wider_eye_has_more_channels():
    for width in (1, 3):
        eye = reader_of(eye="conv-3", eye_width=width).f_glimpse
        channels = [
            layer.out_channels for layer in eye.convolutions if isinstance(layer, nn.Conv2d)
        ]
        assert channels == [16 * width, 32 * width, 32 * width]
