"""How noisy are two gradients of one loss? Rewards against backpropagation, on the same looks.

A model whose glimpse is differentiable can learn where to look in two ways. The *pathwise*
gradient goes through the glimpse to its centre. The *score function* (REINFORCE) asks only
whether a centre that noise had moved did better than usual. Both estimate the gradient of one
number: the expected loss of a model whose centres are drawn from a Gaussian of width sigma around
those that its policy names. So they can be compared at the same weights, images and draws.

`python -m ramlib.experiments.gradient_noise` measures it, in a folder whose `runs` hold the
trainings of `STATES`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ramlib import experiments
from ramlib._files import write_atomically
from ramlib.experiments import records, weights
from ramlib.glimpse import GlimpseGrid
from ramlib.model import RecurrentAttentionModel
from ramlib.tasks import Task

SIGMAS = (0.02, 0.05, 0.1, 0.2)
BATCHES, IMAGES, SAMPLES = 300, 64, 4
# The largest norm of the gradient to one look's centre, where it is limited.
LIMIT = 1.0


def drawn_losses(
    model: RecurrentAttentionModel,
    images: Float[Tensor, "R C H W"],
    labels: Int64[Tensor, " R"],
    noise: Float[Tensor, "R T 2"],
) -> tuple[Float[Tensor, " R"], list[Float[Tensor, "R 2"]]]:
    """The loss of each rollout, and the centres that the policy named on the way.

    Args:
        model: any that looks through a grid.
        images: one for each rollout.
        labels: the right answers.
        noise: what is added to each centre, in units of half the image.
    """
    images = model.preprocess(images)
    state, grid, centres = model.begin(images), None, []
    for t in range(model.config.glimpses):
        state = model.f_rec.look(state)
        grid, _ = model.f_ext(state.h2, grid)
        centre = torch.stack([grid.c_x, grid.c_y], -1)
        centres.append(centre)
        c_x, c_y = (centre + noise[:, t]).unbind(-1)
        grid: GlimpseGrid = replace(grid, c_x=c_x, c_y=c_y)
        seen = model.operator(images, grid, model.config.size, support=model.f_ext.support)
        state = model.f_rec.see(state, model.f_glimpse(seen))
    return F.cross_entropy(model.f_class(state.h1), labels, reduction="none"), centres


def estimates(
    model: RecurrentAttentionModel,
    images: Float[Tensor, "B C H W"],
    labels: Int64[Tensor, " B"],
    sigma: float,
    noise: Float[Tensor, "B S T 2"],
) -> dict[str, Float[Tensor, "B S T 2"]]:
    """Gradients of the expected loss with respect to the named centres, one for each sample.

    Args:
        model: any that looks through a grid.
        images: pixels in [0, 1].
        labels: the right answers.
        sigma: width of the Gaussian.
        noise: standard normal draws, S of them for each image.

    Returns:
        `pathwise`; `limited`, the same with each look's gradient at most 1 long, which is biased;
        and the score function's with no baseline, the batch's mean, or the mean of the image's
        other samples (`none`, `batch` and `others`).
    """
    batch, samples = noise.shape[:2]
    rollouts = noise.flatten(0, 1)
    losses, centres = drawn_losses(
        model,
        images.repeat_interleave(samples, 0),
        labels.repeat_interleave(samples),
        sigma * rollouts,
    )
    pathwise = torch.stack(torch.autograd.grad(losses.sum(), centres), 1)
    score = noise / sigma
    loss = losses.detach().view(batch, samples, 1, 1)
    others = (loss.sum(1, keepdim=True) - loss) / (samples - 1)
    limited = pathwise * (LIMIT / pathwise.norm(dim=-1, keepdim=True).clamp(min=LIMIT))
    return {
        "pathwise": pathwise.view_as(noise),
        "limited": limited.view_as(noise),
        "none": loss * score,
        "batch": (loss - loss.mean()) * score,
        "others": (loss - others) * score,
    }


def within(gradients: Float[Tensor, "B S T 2"]) -> Float[Tensor, ""]:
    """Trace of the covariance over the samples of an image, averaged over the images."""
    return gradients.var(1).sum((1, 2)).mean()


def top_share(gradients: Float[Tensor, "B S T 2"]) -> Float[Tensor, ""]:
    """Share of the gradients' energy that is in the loudest hundredth of the rollouts."""
    energy = gradients.square().sum((2, 3)).flatten().sort(descending=True).values
    return energy[: max(1, len(energy) // 100)].sum() / energy.sum()


def measure_noise(
    model: RecurrentAttentionModel,
    task: Task,
    sigma: float,
    *,
    batches: int = BATCHES,
    images: int = IMAGES,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Noise of both gradients at the weights of `model`, on validation images.

    A few rollouts hold most of the pathwise gradient's energy, so that means over batches are as
    loud as the loudest of them: what is told is the median over batches, and the quartiles.

    Args:
        model: looks through a grid whose centres it names.
        task: where images come from.
        sigma: width of the Gaussian around the centres, in units of half the image.
        batches: how many are measured.
        images: in a batch.
        samples: drawn for each image, at least 2.
        seed: of images and draws.

    Returns:
        By the names of `estimates`: the quartiles of `noise` (see `within`), those of its `ratio`
        to the pathwise gradient's, and the median of `top` (see `top_share`).
    """
    model.eval().requires_grad_(False)
    # The centres must have a graph behind them, and the six numbers are where it begins.
    model.f_ext.linear.bias.requires_grad_(True)
    limit, model.f_ext.gradient_limit = model.f_ext.gradient_limit, None
    generator = torch.Generator().manual_seed(seed)
    noises, tops = [], []
    for _ in range(batches):
        batch = task.sample(images, split="validation", generator=generator)
        noise = torch.randn(images, samples, model.config.glimpses, 2, generator=generator)
        found = estimates(model, batch.images, batch.labels, sigma, noise)
        noises.append(torch.stack([within(g) for g in found.values()]))
        tops.append(torch.stack([top_share(g) for g in found.values()]))
    model.f_ext.gradient_limit = limit
    noises, tops = torch.stack(noises), torch.stack(tops).median(0).values
    quartiles = torch.tensor([0.25, 0.5, 0.75])

    def three(values: Tensor) -> list[float]:
        return [float(f"{value:.4g}") for value in values.quantile(quartiles)]

    return {
        name: {
            "noise": three(noises[:, i]),
            "ratio": three(noises[:, i] / noises[:, 0]),
            "top": round(tops[i].item(), 4),
        }
        for i, name in enumerate(found)
    }


# Along one training: a recipe whose weights are measured, and what the row is called.
STATES = (
    (None, "before training"),
    ("digit-every-look-brief", "after 2,000 updates"),
    ("digit-every-look", "at the end"),
)
FILE = records.FOLDER / "trials" / "gradient-noise.json"


def run(runs: Path, file: Path | None = None, **budget: int) -> list[dict[str, Any]]:
    """Measure all states at all sigmas, and write the rows to `file`.

    Rows that the file holds already are not measured again.

    Args:
        runs: folder of training runs, with those of `STATES`.
        file: what is written; the file that ships when left out.
        budget: of `measure_noise`.
    """
    file = file or FILE
    rows = read(file)
    done = {(row["state"], row["sigma"]) for row in rows}
    last = experiments.get(STATES[-1][0])
    for (name, state), sigma in product(STATES, SIGMAS):
        if (state, sigma) in done:
            continue
        model = last.build() if name is None else weights.load(name, runs=runs)
        found = measure_noise(model, last.task, sigma, **budget)
        row = {"recipe": name or last.name, "state": state, "sigma": sigma, "found": found}
        about = {"data": last.task.describe(), "machine": records.machine()}
        rows.append({**row, **about, "date": records.today()})
        text = json.dumps(rows, indent=2) + "\n"
        write_atomically(file, lambda part, text=text: part.write_text(text, encoding="utf-8"))
    return rows


def read(file: Path | None = None) -> list[dict[str, Any]]:
    """The rows that were measured so far; none if nothing was."""
    file = file or FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


if __name__ == "__main__":
    run(Path("runs"))
