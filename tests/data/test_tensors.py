"""Tensors of one's own as a task: three splits that never mix, and a digest for checkpoints."""

import re
from dataclasses import replace

import pytest
import torch

from ramlib.data.tensors import TensorTask
from ramlib.interface import Rollout

IMAGES = torch.arange(50.0).view(50, 1, 1, 1).expand(50, 1, 2, 3) / 50
LABELS = torch.arange(50) % 7
TASK = TensorTask(IMAGES, LABELS)
SPLITS = ("train", "validation", "test")


def numbers(batch):
    """Which images these are."""
    return (batch.images[:, 0, 0, 0] * 50).round().long().tolist()


def all_of(split, task=TASK, **options):
    return [n for batch in task.batches(split, **options) for n in numbers(batch)]


def test_shape_and_classes_are_those_of_the_tensors():
    assert (TASK.image_shape, TASK.classes) == ((1, 2, 3), 7)


def test_splits_part_the_images():
    parts = {split: all_of(split) for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 40,
        "validation": 5,
        "test": 5,
    }
    assert sorted(n for part in parts.values() for n in part) == list(range(50))


def test_another_seed_parts_them_otherwise():
    assert all_of("test", replace(TASK, seed=1)) != all_of("test")
    assert all_of("test", TensorTask(IMAGES, LABELS)) == all_of("test")


def test_batches_give_each_image_once_with_its_label():
    for batch in TASK.batches("train", batch=7):
        assert batch.labels.tolist() == [n % 7 for n in numbers(batch)]
    assert all_of("train", batch=7) == all_of("train")
    assert all_of("train", count=9) == all_of("train")[:9]


def test_samples_come_from_their_split_and_repeat_with_the_seed():
    first, again = (TASK.sample(200, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert set(numbers(first)) <= set(all_of("train"))
    assert torch.equal(first.images, again.images)
    assert first.labels.tolist() == [n % 7 for n in numbers(first)]


def test_judges_by_wrong_labels():
    batch = next(TASK.batches("test"))
    answers = batch.labels.clone()
    answers[0] += 1
    is_wrong, among = TASK.judge(Rollout(torch.zeros(5, 1, 8), said=answers), batch)["error"]
    assert (int(is_wrong.sum()), int(among.sum())) == (1, 5)


def test_describes_the_splits():
    assert replace(TASK, name="dots").describe() == "dots: 40 train, 5 validation, 5 test"


def test_settings_tell_data_apart_without_holding_them():
    settings = TASK.settings()
    assert all(isinstance(value, str | int | float) for value in settings.values())
    assert TensorTask(IMAGES.clone(), LABELS.clone()).settings() == settings
    other = LABELS.clone()
    other[3] += 1
    assert TensorTask(IMAGES, other).settings() != settings
    assert replace(TASK, seed=1).settings() != settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:3]}, "labels must have shape (50,) for 50 images, got (3,)"),
        ({"labels": LABELS - 1}, "labels must count from 0, got -1"),
        ({"held_out": 0.0}, "held_out must be in (0, 0.5) and leave an image to each split"),
        ({"held_out": 0.5}, "got 0.5 of 50"),
        ({"held_out": 0.01}, "got 0.01 of 50"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_refuses_and_says_why(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(TASK, **changes)


@pytest.mark.usefixtures("as_installed")
def test_refuses_bytes_and_unknown_splits():
    with pytest.raises(TypeError, match="TensorTask: images must be floating point"):
        TensorTask(IMAGES.byte(), LABELS)
    with pytest.raises(ValueError, match="split must be one of validation, test, train"):
        TASK.rows("dev")
