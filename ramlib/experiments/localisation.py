"""Table IV: what a localiser's boxes are worth, beside boxes that people drew and boxes for all.

Every way of cutting a photograph is judged alike: the cut is scaled to a square, the same frozen
network sees it, and a linear probe, trained on the training cuts, names the bird.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ramlib._files import write_atomically
from ramlib.data import crops
from ramlib.data.birds import SIDE, centre_inside, iou
from ramlib.data.mnist import Split
from ramlib.experiments import birds, records
from ramlib.experiments.birds import L2, RECIPES, SUBSET_TRAINS, BirdMaps, fit_probe
from ramlib.experiments.recipe import Recipe
from ramlib.glimpse import read_glimpse
from ramlib.models.localizer import Localizer, smooth, soft_inside

KEPT_CUTS = 60  # ways of cutting whose features stay in the cache

# ---- cuts, as the network sees them ----


def pooled_of(
    task: BirdMaps, boxes: Float[np.ndarray, "n 4"], rows: Int64[np.ndarray, " m"]
) -> Float[Tensor, "m 2 features"]:
    """What the network sees in cuts of photographs, and in their mirror images; kept.

    Args:
        task: whose photographs.
        boxes: of every photograph, xyxy in pixels of the square.
        rows: the photographs that are cut.
    """
    cache = birds.cache(task.root, task.backbone) / "cuts"
    digest = hashlib.sha256(rows.astype(np.int64).tobytes())
    digest.update(boxes[rows].astype(np.float32).round(2).tobytes())
    path, photographs = cache / f"{digest.hexdigest()[:16]}.npy", task.photographs
    pooled = birds.read_array(path)
    if pooled is None:
        frozen, found = birds.in_half_the_bits(task.backbone), []
        for some in birds.chunks(len(rows), "seeing cuts"):
            images = photographs.crop(rows[some], boxes[rows[some]])
            seen = [birds.see(frozen, one).pooled for one in (images, images.flip(3))]
            found.append(torch.stack(seen, 1).float().cpu().numpy())
        pooled = np.concatenate(found)
        birds.write_array(path, pooled)
        for old in sorted(cache.glob("*.npy"), key=lambda p: p.stat().st_mtime)[:-KEPT_CUTS]:
            old.unlink(missing_ok=True)
    return torch.from_numpy(pooled)


# ---- boxes without a localiser: the controls ----


def around_evidence(evidence: Float[Tensor, "B H W"], threshold: float) -> Float[Tensor, "B 4"]:
    """The box around the piece of evidence that holds its maximum, in pixels of the square.

    Args:
        evidence: from LayerCAM.
        threshold: share of the maximum that still belongs to the piece.
    """
    fine = F.interpolate(smooth(evidence)[:, None], (64, 64), mode="bilinear", align_corners=False)[
        :, 0
    ]
    strong = fine >= threshold * fine.amax((1, 2), keepdim=True)
    piece = fine == fine.amax((1, 2), keepdim=True)
    for _ in range(64):
        grown = F.max_pool2d(piece.float()[:, None], 3, 1, 1)[:, 0].bool() & strong
        if torch.equal(grown, piece):
            break
        piece = grown
    edges = []
    for axis in (1, 2):  # rows hidden: columns are left, and the other way round
        shown = piece.any(axis).float()
        first, last = shown.argmax(1), 64 - shown.flip(1).argmax(1)
        edges.append((first, last))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], 1) * (SIDE / 64)


def central_box(boxes: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, " 4"], float]:
    """The one box that has most in common with all of some boxes, and its mean IoU with them."""
    best, found = -1.0, boxes[0]
    shares = torch.arange(0.4, 1.001, 0.05).tolist()
    for wide, high, down in itertools.product(shares, shares, (0.45, 0.5, 0.55, 0.6)):
        half = torch.tensor([wide, high]) / 2
        middle = torch.tensor([0.5, down])
        box = SIDE * torch.cat([middle - half, middle + half])
        mean = float(iou(box.expand_as(boxes), boxes).mean())
        if mean > best:
            best, found = mean, box
    return found, best


def grow(boxes: Float[Tensor, "n 4"], factor: float) -> Float[Tensor, "n 4"]:
    """Boxes that are `factor` times as wide and as high."""
    return torch.from_numpy(crops.expand_boxes(boxes.numpy(), factor - 1)).float()


# ---- Table IV ----


def interval(
    rows: Float[Tensor, "seeds photographs"], draws: int = 4_000
) -> dict[str, float | int]:
    """A mean in percent, with its 95 % interval over photographs and seeds: both are drawn again.

    Args:
        rows: a value for each photograph under each seed.
        draws: of the bootstrap.

    Efron & Tibshirani (1993).
    """
    seeds, n = rows.shape
    generator = torch.Generator().manual_seed(0)
    means = []
    for _ in range(draws):
        of_seed = torch.randint(seeds, (seeds,), generator=generator)
        of_photograph = torch.randint(n, (n,), generator=generator)
        means.append(rows[of_seed].mean(0)[of_photograph].mean())
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975])).tolist()
    kept = {"value": float(rows.mean()), "low": low, "high": high}
    return {**{k: round(100 * v, 2) for k, v in kept.items()}, "n": n, "seeds": seeds}


class Cut(NamedTuple):
    """A way of cutting all photographs of a task: a box each, for each seed."""

    name: str
    row: str
    boxes: Float[Tensor, "seeds n 4"]


def controls(task: BirdMaps) -> list[Cut]:
    """What localisers are held against: boxes that people drew, and boxes that nobody learnt."""
    photographs, train = task.photographs, task.rows("train")
    truth = torch.from_numpy(photographs.boxes).float()
    n, (central, _) = len(truth), central_box(truth[train])
    side = (central[2:] - central[:2]).expand(n, 2)
    corner = torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) * (SIDE - side)
    straight, mirrored = torch.from_numpy(np.array(task.kept.evidence)).float().unbind(1)
    cam = around_evidence(straight + mirrored.flip(2), task.threshold)
    return [
        Cut("truth", "ground truth", truth[None]),
        Cut("truth-larger", "ground truth, 1.2 times as large", grow(truth, 1.2)[None]),
        Cut("central", "best central box", central.expand(1, n, 4)),
        Cut("random", "random box of that size", torch.cat([corner, corner + side], 1)[None]),
        Cut("layercam", "LayerCAM", cam[None]),
    ]


@torch.inference_mode()
def windows_of(model: Localizer, task: BirdMaps) -> Float[Tensor, "n T 4"]:
    """Where a localiser looks on every photograph of a task, by the rule of `locate`."""
    maps, device = task.kept.maps, next(model.parameters()).device
    parts = np.array_split(np.arange(len(maps)), -(-len(maps) // 250))

    def look(way: int) -> Float[Tensor, "n T 4"]:
        some = (torch.from_numpy(maps[rows, way]).float().to(device) for rows in parts)
        return torch.cat([model(one, noisy=False).windows.cpu() for one in some])

    return model.join(look(0), look(1))


def probabilities(
    task: BirdMaps, boxes: Float[Tensor, "n 4"] | None, split: Split
) -> Float[Tensor, "m K"]:
    """What a probe of the training cuts says of a split's: the mean over cut and mirror image.

    Args:
        task: whose photographs.
        boxes: of every photograph; None for the whole.
        split: what is asked for.
    """
    train, asked = task.rows("train"), task.rows(split)
    rows = np.concatenate([train, asked])
    if boxes is None:
        pooled = torch.from_numpy(task.kept.pooled[rows])
    else:
        pooled = pooled_of(task, boxes.numpy(), rows)
    known, unknown = pooled.split([len(train), len(asked)])
    labels = torch.from_numpy(task.photographs.listing.labels[train]).repeat_interleave(2)
    probe = fit_probe(known.flatten(0, 1), labels, task.classes)
    return probe.scores(unknown.flatten(0, 1)).softmax(1).unflatten(0, (-1, 2)).mean(1)


def table_rows(task: BirdMaps, learnt: list[Cut]) -> list[dict[str, Any]]:
    """Every row of Table IV on the test photographs, in percent, with intervals.

    `gain` is over the whole photograph. `with_whole` averages what is said of the cut and of the
    whole.

    Args:
        task: whose photographs.
        learnt: the localisers' cuts.
    """
    test = task.rows("test")
    labels = torch.from_numpy(task.photographs.listing.labels[test])
    truth = torch.from_numpy(task.photographs.boxes[test]).float()
    whole = probabilities(task, None, "test")

    def right(chances: list[Tensor]) -> Float[Tensor, "seeds n"]:
        return torch.stack([(one.argmax(1) == labels).float() for one in chances])

    full = torch.tensor([0.0, 0, SIDE, SIDE]).expand(1, len(test), 4)
    base, prefix = right([whole]), f"birds-{task.data}"
    first = {"recipe": f"{prefix}-whole", "row": "whole", "accuracy": interval(base)}
    rows = [{**first, **overlap(full, truth)}]
    for cut in [*controls(task), *learnt]:
        said = [probabilities(task, boxes, "test") for boxes in cut.boxes]
        alone, both = right(said), right([one + whole for one in said])
        gain, gain_both = interval(alone - base), interval(both - base)
        rows.append(
            {
                "recipe": f"{prefix}-{cut.name}",
                "row": cut.row,
                "accuracy": interval(alone),
                "gain": gain,
                "gain_low": gain["low"],
                "with_whole": interval(both),
                "gain_with_whole": gain_both,
                "gain_with_whole_low": gain_both["low"],
                "photographs_needed": photographs_needed(alone - base),
                **overlap(cut.boxes[:, test], truth),
            }
        )
    return rows


def photographs_needed(gains: Float[Tensor, "seeds n"], gain: float = 0.012) -> int:
    """Test photographs from which a true gain would leave zero outside its 95 % interval.

    Args:
        gains: of each photograph under each seed: -1, 0 or 1.
        gain: by default, what the paper reports.
    """
    return round((1.96 * float(gains.mean(0).std()) / gain) ** 2)


def overlap(boxes: Float[Tensor, "seeds n 4"], truth: Float[Tensor, "n 4"]) -> dict[str, Any]:
    """IoU, IoU above one half, centre inside, and the share of the bird's box that is covered."""
    shared, half, centre, covered = [], [], [], []
    for own in boxes.clamp(0, SIDE):
        ious = iou(own, truth)
        area = (own[:, 2:] - own[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1)
        shared.append(ious)
        half.append((ious > 0.5).float())
        centre.append(centre_inside(own, truth).float())
        covered.append(ious / (1 + ious) * area / (truth[:, 2:] - truth[:, :2]).prod(1))
    names = ("iou", "iou_above_half", "centre_inside", "covered")
    return {
        name: interval(torch.stack(part))
        for name, part in zip(names, (shared, half, centre, covered), strict=True)
    }


# ---- what pulls a window onto a bird ----


@torch.no_grad()
def pull(task: BirdMaps, model: Localizer, split: Split = "validation") -> list[dict[str, float]]:
    """Both parts of the loss while the last window slides along x, past the birds.

    Args:
        task: whose photographs.
        model: whose window, classifier and glimpse network.
        split: the photographs.

    Returns:
        A row for each distance between the centres of window and bird, in shares of the photograph,
        with the mean cross-entropy and the mean evidence outside.
    """
    batches = [(batch, model.looks(batch.images, noisy=False)) for batch in task.batches(split)]
    rows = []
    for distance in torch.linspace(-0.5, 0.5, 17).tolist():
        losses, outside = [], []
        for batch, looks in batches:
            middle = (batch.boxes[:, 0] + batch.boxes[:, 2]) / 2 + distance * SIDE
            cells = middle / SIDE * birds.MAPS[2]
            moved = replace(looks[-1].grid, c_x=2 * (cells - 0.5) / (birds.MAPS[2] - 1) - 1)
            glimpses = read_glimpse(model.preprocess(batch.images), moved, model.config.size)
            scores = model.f_class(model.f_glimpse(glimpses))
            losses.append(F.cross_entropy(scores, batch.labels, reduction="none"))
            box = moved.boxes(model.config.size, birds.MAPS[1:])
            outside.append(((1 - soft_inside(box, birds.MAPS[1:])) * batch.evidence).sum((1, 2)))
        means = (float(torch.cat(part).mean()) for part in (losses, outside))
        rows.append(
            dict(zip(("distance", "cross_entropy", "outside"), (distance, *means), strict=True))
        )
    return rows


# ---- running all of it ----

FOLDER = records.FOLDER / "birds"
SEEDS = 5
# What a localiser with evidence is chosen from, by the validation loss of its cuts.
THRESHOLDS, AREAS = (0.25,), (11.0, 15.0)


def trained(recipe: Recipe, runs: Path) -> Localizer:
    """The localiser of a recipe, trained in `runs` unless it was before."""
    from ramlib.experiments import training, weights  # Lightning takes seconds to import

    folder = runs / f"{recipe.name}-{recipe.seed}"
    module, _ = training.train(
        recipe,
        folder,
        resume=True,
        accelerator="auto",
        checkpoint_every=recipe.updates,
        quiet=True,
    )
    weights.save_weights(module.model, folder / "weights.safetensors")
    return module.model.eval().cpu()


def choose(task: BirdMaps, recipe: Recipe, runs: Path) -> list[dict[str, Any]]:
    """Validation accuracy and loss of cuts, for each threshold of evidence and weight of area.

    No box is looked at. One thing is changed at a time. The lower loss is chosen: the accuracy of a
    few hundred photographs is too coarse to tell the settings apart.
    """
    labels = torch.from_numpy(task.photographs.listing.labels)
    held_out = task.rows("validation")
    pairs = [(0.25, area) for area in AREAS] + [(t, 11.0) for t in THRESHOLDS if t != 0.25]
    rows = []
    for threshold, area in pairs:
        changed = replace(
            recipe,
            name=f"{recipe.name}-{threshold}-{area}",
            task=replace(task, threshold=threshold),
            model=replace(recipe.model, area=area),
        )
        boxes = windows_of(trained(changed, runs), task)[:, -1]
        chances = probabilities(task, boxes, "validation")
        right = (chances.argmax(1) == labels[held_out]).float()
        loss = F.nll_loss(chances.log(), labels[held_out])
        row = {"threshold": threshold, "area": area, "accuracy": interval(right[None])}
        rows.append({**row, "loss": round(float(loss), 4)})
    return rows


def for_folder(recipe: Recipe, classes: int | None) -> Recipe:
    """The recipe for a folder of so many classes: as many epochs as on the folder it was made for.

    Args:
        recipe: of a localiser.
        classes: that the folder names; None for those of the recipe's.
    """
    if classes is None or classes == recipe.task.classes:
        return recipe
    task = replace(recipe.task, classes=classes)
    longer = len(task.rows("train")) / SUBSET_TRAINS
    every = recipe.model.reset_every
    model = replace(recipe.model, reset_every=every and round(every * longer))
    return replace(recipe, task=task, model=model, updates=round(recipe.updates * longer))


def run(data: str, runs: Path, seeds: int = SEEDS, classes: int | None = None) -> Path:
    """Train and measure all of Table IV on `cub` or `twin`, and write it down.

    Args:
        data: which photographs.
        runs: folder of trainings; what is there is not trained again.
        seeds: of each localiser.
        classes: that the folder names; None for those of the recipes.
    """
    part = "" if data == "cub" else f"-{data}"
    ways = (("ram", "RAM, class evidence", ""), ("ram-paper", "RAM, cross-entropy alone", "-paper"))
    recipes = {
        name: for_folder(RECIPES[f"birds{part}-localizer{way}"], classes) for name, _, way in ways
    }
    task = recipes["ram"].task
    test = task.rows("test")
    truth = torch.from_numpy(task.photographs.boxes[test]).float()
    learnt, by_look, pulled = [], {}, {}
    for name, row, _ in ways:
        models = [trained(replace(recipes[name], seed=seed), runs) for seed in range(seeds)]
        windows = torch.stack([windows_of(model, task) for model in models])
        learnt.append(Cut(name, row, windows[:, :, -1]))
        pulled[name] = pull(task, models[0])
        looks = windows[:, test].unbind(2)
        by_look[name] = [overlap(look, truth)["iou"] for look in looks]
    return write(
        f"table-{data}",
        {
            "data": task.describe(),
            "rows": table_rows(task, learnt),
            "iou_by_look": by_look,
            "pull": pulled,
            "recipes": {name: recipe.settings() for name, recipe in recipes.items()},
            "probe": {"l2": L2, "trained_on": "training cuts and their mirror images"},
        },
    )


def read(name: str) -> dict[str, Any]:
    """What was measured of `table-cub`, `table-twin` or `choice`.

    Raises:
        FileNotFoundError: if it was not.
    """
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def read_rows() -> dict[str, dict[str, Any]]:
    """Every measured row of Table IV, by its name."""
    return {
        row["recipe"]: row
        for data in ("cub", "twin")
        if (FOLDER / f"table-{data}.json").is_file()
        for row in read(f"table-{data}")["rows"]
    }


def write(name: str, found: dict[str, Any]) -> Path:
    """Keep what was measured, with machine and date, as `records/birds/NAME.json`."""
    found = {**found, "machine": records.machine(), "date": records.today()}
    text = json.dumps(found, indent=1) + "\n"
    path = FOLDER / f"{name}.json"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return path


def main() -> None:
    """`python -m ramlib.experiments.localisation cub`: Table IV from photographs to its record."""
    top = argparse.ArgumentParser(
        prog="python -m ramlib.experiments.localisation", description=__doc__
    )
    top.add_argument("data", choices=("cub", "twin"))
    top.add_argument("--classes", type=int, help="that the folder names; else as in the book")
    top.add_argument("--runs", type=Path, default=Path("runs"), help="folder of trainings")
    top.add_argument("--seeds", type=int, default=SEEDS, help="of each localiser")
    args = top.parse_args()
    print(run(args.data, args.runs, args.seeds, args.classes))


if __name__ == "__main__":
    main()
