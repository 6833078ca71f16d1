"""What a model is worth: shares of cases with intervals, and the cost of an answer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib._checks import require
from ramlib.interface import Classifier
from ramlib.tasks import Judgement, Task

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


def shares(judgements: Iterable[Judgement]) -> dict[str, Measure]:
    """Add up what was judged of several batches; what no case is among is left out."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for judgement in judgements:
        for name, (cases, among) in judgement.items():
            counts[name][0] += int((cases & among).sum())
            counts[name][1] += int(among.sum())
    return {name: share(hits, n) for name, (hits, n) in counts.items() if n}


def checked(task: Task, batch: Any) -> Any:
    """The batch, if it has what a batch must have.

    Raises:
        TypeError: if not; the message says what a task hands out.
    """
    if not hasattr(batch, "images") or not hasattr(batch, "labels"):
        raise TypeError(
            f"{type(task).__name__} hands out batches of type {type(batch).__name__}; a batch has "
            "images and labels by these names, as ramlib.interface.Batch(images, labels) does"
        )
    return batch


@torch.inference_mode()
def measure(
    task: Task,
    model: Classifier,
    split: str = "validation",
    count: int | None = None,
    *,
    passes: int = 0,
) -> dict[str, Measure]:
    """All that `task` judges of a model, by name.

    Args:
        task: judges; see `ramlib.tasks.Task`.
        model: in evaluation mode, on any device. It need not look.
        split: which images.
        count: how many, at most; the task's own number when left out.
        passes: noisy passes whose mean answers; 0 for one pass without noise. Windows are always
            those of the pass without noise.

    Raises:
        ValueError: if `model` is in training mode.
    """
    require(
        not model.training,
        "measure: model must be in evaluation mode, got one in training mode; "
        "call model.eval() first",
    )
    device = next(model.parameters()).device

    def judge(batch: Any) -> Judgement:
        rollout = model(checked(task, batch).images, noisy=False)
        if passes:
            rollout = replace(rollout, said=model.predict(batch.images, passes=passes))
        return task.judge(rollout, batch)

    return shares(judge(batch) for batch in task.batches(split, count, device=device))


def multiply_adds(model: nn.Module, images: Float[Tensor, "n ..."]) -> int:
    """Multiply-adds of a forward pass, counted by torch's own flop counter: the mean over images.

    Args:
        model: in evaluation mode.
        images: given to the model one by one, so that a reader stops where each number ends.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    # In inference mode, torch before 2.5 hands whole layers to the counter, which it does not know.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for image in images.to(device).split(1):
            model(image)
    return round(counter.get_total_flops() / 2 / len(images))
