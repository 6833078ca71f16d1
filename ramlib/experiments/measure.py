"""What a model is worth: errors with confidence intervals, noisy averages, ensembles, misses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ramlib._checks import require
from ramlib.data.cluttered import DIGIT_SIDE, HEAP, CanvasBatch, ClutteredDigits, boxes_overlap
from ramlib.data.house_numbers import STOP, HouseNumbers, NumberBatch
from ramlib.data.mnist import Split
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Classifier
from ramlib.models.reader import Reader

# The canvases of the test are made from this seed, which no training uses.
TEST_SEED = 2016
TEST_IMAGES = 20_000
BATCH = 500
PASSES = 10  # with noise on the grids, as Section IV-B of Semeniuta & Barth (2016) averages them


@dataclass(frozen=True)
class Measure:
    """A share of cases, in percent, with its 95 % interval.

    Args:
        value: `100 * hits / n`.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of cases.
    """

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """For a record."""
        return {key: round(value, 3) for key, value in asdict(self).items()}


def share(hits: int, n: int) -> Measure:
    """`hits` of `n` in percent, with Wilson's 95 % interval.

    Raises:
        ValueError: unless 0 <= hits <= n and n >= 1.

    Wilson (1927).
    """
    require(n >= 1 and 0 <= hits <= n, f"share: 0 <= hits <= n must hold, got {hits} of {n}")
    z = 1.959964
    p, z2 = hits / n, z * z / n
    middle = (p + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * math.sqrt(p * (1 - p) / n + z2 / (4 * n))
    # At 0 and n hits an end of the interval is p itself, and rounding would cross it.
    low, high = max(0.0, min(middle - half, p)), min(1.0, max(middle + half, p))
    return Measure(100 * p, 100 * low, 100 * high, n)


def canvases(
    task: ClutteredDigits,
    images: int = TEST_IMAGES,
    *,
    split: Split = "test",
    seed: int = TEST_SEED,
    batch: int = BATCH,
    device: torch.device | str = "cpu",
) -> Iterator[CanvasBatch]:
    """Batches of canvases, the same ones every time: `images` of them, made from `seed`."""
    require(images >= 1, f"canvases: images must be at least 1, got {images}")
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, images, batch):
        yield task.sample(min(batch, images - start), split=split, generator=generator)


def probabilities(
    model: Classifier, images: Float[Tensor, "B C H W"], *, runs: int = 0
) -> Float[Tensor, "B classes"]:
    """Class probabilities after the last look.

    Args:
        model: in evaluation mode.
        images: as `model` takes them.
        runs: 0 for one deterministic pass; otherwise the mean of so many passes with noisy grids,
            as Section IV-B of Semeniuta & Barth (2016) averages them.
    """
    if runs == 0:
        return model(images, noisy=False).logits[:, -1].softmax(-1)
    passes = [model(images, noisy=True).logits[:, -1].softmax(-1) for _ in range(runs)]
    return torch.stack(passes).mean(0)


def ensemble(
    models: list[Classifier], images: Float[Tensor, "B C H W"], *, runs: int = 0
) -> Float[Tensor, "B classes"]:
    """Mean of several models' probabilities."""
    require(len(models) >= 1, "ensemble: models must hold at least one model, got none")
    return torch.stack([probabilities(model, images, runs=runs) for model in models]).mean(0)


def hits(
    grids: GlimpseGrid, corners: Int64[Tensor, "B D 2"], size: int, image_size: tuple[int, int]
) -> Bool[Tensor, "B T D"]:
    """Whether each look is on each digit.

    It is if the window's centre lies within the digit's 28x28 box and neither of the window's
    sides is over twice the box's. A window on the whole canvas is on nothing.

    Args:
        grids: of shape `(B, T)`.
        corners: top-left pixels of the digits' boxes, x before y.
        size: N, side of the glimpse.
        image_size: `(H, W)`.
    """
    boxes = grids.boxes(size, image_size)
    low, high = boxes[..., :2], boxes[..., 2:]
    centre = ((low + high) / 2)[:, :, None]
    first = corners[:, None].to(centre.dtype)
    inside = ((centre >= first) & (centre <= first + DIGIT_SIDE)).all(-1)
    small = (high - low).amax(-1) <= 2 * DIGIT_SIDE
    return inside & small[..., None]


def spans(
    grids: GlimpseGrid, corners: Int64[Tensor, "B D 2"], size: int, image_size: tuple[int, int]
) -> Bool[Tensor, "B T"]:
    """Whether each look's window holds the centres of all digits at once.

    Args:
        grids: of shape `(B, T)`.
        corners: top-left pixels of the digits' boxes, x before y.
        size: N, side of the glimpse.
        image_size: `(H, W)`.
    """
    boxes = grids.boxes(size, image_size)[:, :, None]
    middle = corners[:, None].to(boxes.dtype) + DIGIT_SIDE / 2
    return ((boxes[..., :2] <= middle) & (middle <= boxes[..., 2:])).flatten(2).all(-1)


@dataclass(frozen=True)
class DigitReport:
    """What is measured of a model on one digit per canvas.

    Args:
        error: share of canvases named wrongly.
        missed: share of canvases whose digit the last look was not on; see `hits`.
        error_where_missed: share of the errors that were made on missed digits: the errors due to
            mislocalisation. None for a model without errors.
    """

    error: Measure
    missed: Measure
    error_where_missed: Measure | None


def _in_evaluation_mode(model: nn.Module) -> None:
    require(
        not model.training,
        "evaluation: model must be in evaluation mode, got one in training mode; "
        "call model.eval() first",
    )


@torch.inference_mode()
def evaluate_digits(
    model: Classifier, batches: Iterator[CanvasBatch], *, runs: int = 0
) -> DigitReport:
    """Error and misses of `model` over `batches` of one-digit canvases.

    Args:
        model: in evaluation mode.
        batches: from `canvases`.
        runs: noisy passes to average; 0 for one deterministic pass. Misses are always counted on
            the deterministic pass.

    Raises:
        ValueError: if `model` is in training mode.
    """
    _in_evaluation_mode(model)
    n = wrong = missed = both = 0
    for batch in batches:
        rollout = model(batch.images, noisy=False)
        chances = (
            rollout.logits[:, -1] if runs == 0 else probabilities(model, batch.images, runs=runs)
        )
        is_wrong = chances.argmax(-1) != batch.labels
        on = hits(rollout.grids, batch.corners, rollout.glimpses.shape[-1], model.image_shape[1:])
        is_missed = ~on[:, -1, 0]
        n += len(batch.labels)
        wrong += int(is_wrong.sum())
        missed += int(is_missed.sum())
        both += int((is_wrong & is_missed).sum())
    return DigitReport(share(wrong, n), share(missed, n), share(both, wrong) if wrong else None)


@dataclass(frozen=True)
class PairReport:
    """What is measured of a model on two digits per canvas.

    Args:
        error: share of canvases named wrongly.
        error_apart: the same among canvases whose digits' boxes do not overlap.
        error_heaped: the same among those where at least half of one box lies under the other.
            None where there are no such canvases.
        visited_both: share of those on which the looks were on both digits, at one time or
            another; see `hits`. None for a model that does not look.
        spanned_both: share of those on which a window held both digits at once; see `spans`. None
            for a model that does not look.
    """

    error: Measure
    error_apart: Measure
    error_heaped: Measure | None
    visited_both: Measure | None
    spanned_both: Measure | None


@torch.inference_mode()
def evaluate_pairs(
    model: Classifier, batches: Iterator[CanvasBatch], *, runs: int = 0
) -> PairReport:
    """Error and visits of `model` over `batches` of two-digit canvases.

    Args:
        model: in evaluation mode.
        batches: from `canvases`.
        runs: noisy passes to average; 0 for one deterministic pass. Visits are always counted on
            the deterministic pass.

    Raises:
        ValueError: if `model` is in training mode.
    """
    _in_evaluation_mode(model)
    n = apart = heaped = wrong = wrong_apart = wrong_heaped = both = at_once = 0
    looks = False
    for batch in batches:
        rollout = model(batch.images, noisy=False)
        chances = (
            rollout.logits[:, -1] if runs == 0 else probabilities(model, batch.images, runs=runs)
        )
        is_wrong = chances.argmax(-1) != batch.labels
        overlap = boxes_overlap(batch.corners)
        is_apart, is_heaped = overlap == 0, overlap >= HEAP
        n += len(batch.labels)
        apart += int(is_apart.sum())
        heaped += int(is_heaped.sum())
        wrong += int(is_wrong.sum())
        wrong_apart += int((is_wrong & is_apart).sum())
        wrong_heaped += int((is_wrong & is_heaped).sum())
        if rollout.grids is not None:
            looks = True
            size = rollout.glimpses.shape[-1]
            where = (rollout.grids, batch.corners, size, model.image_shape[1:])
            both += int((hits(*where).any(1).all(-1) & is_apart).sum())
            at_once += int((spans(*where).any(1) & is_apart).sum())
    return PairReport(
        share(wrong, n),
        share(wrong_apart, apart),
        share(wrong_heaped, heaped) if heaped else None,
        share(both, apart) if looks else None,
        share(at_once, apart) if looks else None,
    )


@dataclass(frozen=True)
class NumberReport:
    """What is measured of a reader.

    Args:
        error: share of numbers in which any digit, or the length, was read wrongly.
        digit_error: share of digits that were read wrongly, or not at all, at their places from
            the left.
        too_long: share of numbers in which more digits were read than there are.
        too_short: share of numbers in which fewer were.
    """

    error: Measure
    digit_error: Measure
    too_long: Measure
    too_short: Measure


@torch.inference_mode()
def evaluate_numbers(
    model: Reader, batches: Iterator[NumberBatch], *, runs: int = 0
) -> NumberReport:
    """Errors of `model` over `batches` of house numbers.

    Args:
        model: in evaluation mode.
        batches: from `HouseNumbers.batches`.
        runs: noisy passes to average; 0 for one deterministic pass.

    Raises:
        ValueError: if `model` is in training mode.
    """
    _in_evaluation_mode(model)
    n = digits = wrong = wrong_digits = too_long = too_short = 0
    for batch in batches:
        read = model.predict(batch.images, passes=runs)
        is_digit = batch.labels != STOP
        longer = (read != STOP).sum(1) - is_digit.sum(1)
        n += len(read)
        digits += int(is_digit.sum())
        wrong += int((read != batch.labels).any(1).sum())
        wrong_digits += int(((read != batch.labels) & is_digit).sum())
        too_long += int((longer > 0).sum())
        too_short += int((longer < 0).sum())
    return NumberReport(
        share(wrong, n), share(wrong_digits, digits), share(too_long, n), share(too_short, n)
    )


def describe(task: ClutteredDigits | HouseNumbers, images: int) -> str:
    """The data of a record, and how much of it was measured."""
    if isinstance(task, HouseNumbers):
        return task.describe()
    return f"{task.describe()}; {images} test canvases, seed {TEST_SEED}"


def measure(
    task: ClutteredDigits | HouseNumbers,
    model: Classifier,
    split: Split,
    images: int,
    *,
    runs: int = 0,
) -> dict[str, dict[str, float]]:
    """All that is measured of a model on a task, by the names that records use.

    Args:
        task: what `model` was trained for.
        model: in evaluation mode.
        split: which images.
        images: how many, at most.
        runs: noisy passes to average; 0 for one deterministic pass.

    Raises:
        ValueError: if `model` is in training mode.
    """
    if isinstance(task, HouseNumbers):
        report = evaluate_numbers(model, task.batches(split, images), runs=runs)
    else:
        evaluate_task = {1: evaluate_digits, 2: evaluate_pairs}[task.digits]
        report = evaluate_task(model, canvases(task, images, split=split), runs=runs)
    return {name: m.as_dict() for name, m in vars(report).items() if m is not None}


@torch.inference_mode()
def error_rate(classify: Callable[[Tensor], Tensor], batches: Iterator[CanvasBatch]) -> Measure:
    """Share of canvases that `classify` (images to scores or probabilities) names wrongly."""
    n = wrong = 0
    for batch in batches:
        wrong += int((classify(batch.images).argmax(-1) != batch.labels).sum())
        n += len(batch.labels)
    return share(wrong, n)


def examples(task: ClutteredDigits | HouseNumbers) -> Float[Tensor, "n C H W"]:
    """Images to count a model's cost on: the numbers of the sample's test part; else a blank one.

    A reader stops where a number ends. Any other model spends the same on every image.
    """
    if isinstance(task, HouseNumbers):
        return next(replace(task, data="sample").batches("test")).images
    return torch.zeros(1, *task.image_shape)


def multiply_adds(model: nn.Module, images: Float[Tensor, "n C H W"]) -> int:
    """Multiply-adds of a forward pass, counted by torch's own flop counter: the mean over images.

    Args:
        model: in evaluation mode.
        images: given to the model one by one, so that a reader stops where each number ends.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for image in images.to(device).split(1):
            model(image)
    return round(counter.get_total_flops() / 2 / len(images))
