"""Birds: attention as a localiser, and what its boxes do for a classifier (Table IV).

Photographs pass through the frozen network once; their maps, and the class evidence on them, lie in
the cache. A localiser trains on those. Then every way of cutting a photograph (the whole, the box
that people drew, the localiser's window, and controls) is judged alike: the cut is scaled to a
square, the same network sees it, and a linear probe, trained on the training cuts, names the bird.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ramlib._checks import require
from ramlib._extras import bar
from ramlib._files import write_atomically
from ramlib.data import crops
from ramlib.data.birds import (
    SAMPLE,
    SIDE,
    Birds,
    Photographs,
    centre_inside,
    iou,
    load,
    split_rows,
)
from ramlib.data.mnist import Split
from ramlib.experiments import records
from ramlib.experiments.recipe import Group, Recipe, Table, by_name
from ramlib.glimpse import read_glimpse
from ramlib.models.features import LITE0, FrozenMaps, Seen, layer_cam
from ramlib.models.localizer import (
    Localizer,
    LocalizerConfig,
    MapBatch,
    sharpen,
    smooth,
    soft_inside,
)

MAPS = (112, 16, 16)
L2 = 0.1
BATCH = 32
KEPT_CUTS = 60  # ways of cutting whose features stay in the cache

# ---- a linear probe ----


class Probe(NamedTuple):
    """A linear classifier of standardised features."""

    weight: Float[Tensor, "features classes"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]

    def scores(self, pooled: Float[Tensor, "B features"]) -> Float[Tensor, "B classes"]:
        """Class scores."""
        return (pooled - self.mean) / self.scale @ self.weight + self.bias


def fit_probe(
    pooled: Float[Tensor, "n features"], labels: Int64[Tensor, " n"], classes: int, l2: float = L2
) -> Probe:
    """The linear classifier of least cross-entropy; the problem is convex, so chance has no part.

    Args:
        pooled: features.
        labels: classes, counted from 0.
        classes: how many.
        l2: weight of half the squared weights.
    """
    mean, scale = pooled.mean(0), pooled.std(0) + 1e-3
    inputs = (pooled - mean) / scale
    weight = torch.zeros(pooled.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(inputs @ weight + bias, labels) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return Probe(weight.detach(), bias.detach(), mean, scale)


# ---- what the frozen network sees, kept ----


class Kept(NamedTuple):
    """Of each photograph of a folder and of its mirror image: maps, pooled features, evidence.

    Evidence is LayerCAM's for the class: the label of a training photograph, and what a probe of
    the training photographs says of any other.
    """

    maps: np.ndarray  # (n, 2, C, H, W), float16
    pooled: Float[np.ndarray, "n 2 features"]
    evidence: Float[np.ndarray, "n 2 H W"]


def _cache(root: Path, backbone: str) -> Path:
    listing = load(root).listing
    folders = sorted({path.parent for path in listing.paths})
    return crops.cache_of("bird-maps", (str(root.resolve()), backbone, MAPS), [root, *folders])


def _chunks(n: int, title: str) -> Iterator[np.ndarray]:
    rows = np.arange(n)
    return iter(bar([rows[i : i + BATCH] for i in range(0, n, BATCH)], title, -(-n // BATCH)))


def _see(frozen: FrozenMaps, images: Tensor, *, graph: bool = False) -> Seen:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return frozen.see(images.to(device), graph=graph)


def _frozen(backbone: str) -> FrozenMaps:
    """In half the bits: it is twice as fast, and what is kept has no more of them."""
    return FrozenMaps(backbone, MAPS, torch.bfloat16)


@lru_cache(maxsize=2)
def kept(root: Path, backbone: str = LITE0) -> Kept:
    """What the network sees in a folder's photographs: from the cache, or made once.

    Of the sample, it ships.
    """
    if root == SAMPLE and backbone == LITE0:
        return _shipped()
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller does
        return _make(root, backbone)


def _make(root: Path, backbone: str) -> Kept:
    photographs, cache = load(root), _cache(root, backbone)
    n, frozen = len(photographs.sizes), _frozen(backbone)
    shape = (n, 2, *MAPS)
    maps = crops.mapped(cache / "maps.npy", shape, np.float16)
    pooled = _read(cache / "pooled.npy")
    if maps is None or pooled is None:
        found: list[np.ndarray] = []

        def fill(array: np.ndarray) -> None:
            for rows in _chunks(n, "seeing photographs"):
                images = photographs.of(rows).images
                seen = [_see(frozen, one) for one in (images, images.flip(3))]
                array[rows] = torch.stack([one.maps for one in seen], 1).half().cpu().numpy()
                found.append(torch.stack([one.pooled for one in seen], 1).float().cpu().numpy())

        maps = crops.write_mapped(cache / "maps.npy", shape, np.float16, fill)
        pooled = np.concatenate(found)
        _write(cache / "pooled.npy", pooled)
    evidence = _read(cache / "evidence.npy")
    if evidence is None:
        evidence = _evidence(photographs, pooled, frozen)
        _write(cache / "evidence.npy", evidence)
    return Kept(maps, pooled, evidence)


# Of the sample, what the network sees ships in eight bits, so that nobody needs the network.
SHIPPED = SAMPLE / "maps.npz"


def _shipped() -> Kept:
    with np.load(SHIPPED, allow_pickle=False) as file:
        maps, pooled, evidence = (
            file[name].astype(np.float32) * file[f"{name}_step"]
            for name in ("maps", "pooled", "evidence")
        )
    return Kept(maps.astype(np.float16), pooled, evidence)


def pack_sample() -> Path:
    """See the sample through the network, and write what ships of it."""
    seen = _make(SAMPLE, LITE0)
    packed = {}
    for name, array in seen._asdict().items():
        array = np.asarray(array, np.float32)
        # One step for each channel of maps; one for all else.
        axes = (0, 1, 3, 4) if name == "maps" else None
        step = np.abs(array).max(axis=axes, keepdims=axes is not None) / 127
        packed[name] = np.round(array / step).astype(np.int8)
        packed[f"{name}_step"] = np.asarray(step, np.float32)
    write_atomically(SHIPPED, lambda file: _save(file, packed))
    return SHIPPED


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _read(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _write(path: Path, array: np.ndarray) -> None:
    crops.write_mapped(path, array.shape, array.dtype.type, lambda a: a.__setitem__(..., array))


def _evidence(photographs: Photographs, pooled: np.ndarray, frozen: FrozenMaps) -> np.ndarray:
    """LayerCAM of a probe's score for the class, above its mean over classes."""
    probe, labels = _own_probe(photographs, torch.from_numpy(pooled))
    evidence = np.empty((len(labels), 2, *MAPS[1:]), np.float32)
    for rows in _chunks(len(labels), "gathering evidence"):
        images = photographs.of(rows).images
        for place, one in enumerate((images, images.flip(3))):
            seen = _see(frozen, one, graph=True)
            scores = probe.scores(seen.pooled.float().cpu())
            own = scores.gather(1, labels[rows, None]) - scores.mean(1, keepdim=True)
            evidence[rows, place] = layer_cam(seen.maps, own.sum()).float().cpu().numpy()
    return evidence


def _own_probe(photographs: Photographs, pooled: Tensor) -> tuple[Probe, Int64[Tensor, " n"]]:
    """A probe of the whole training photographs; labels where they may be known, else its own."""
    train = split_rows(photographs.listing, "train")
    truth = torch.from_numpy(photographs.listing.labels)
    classes = len(photographs.listing.classes)
    probe = fit_probe(pooled[train].flatten(0, 1), truth[train].repeat_interleave(2), classes)
    labels = probe.scores(pooled[:, 0]).argmax(1)
    labels[train] = truth[train]
    return probe, labels


def pooled_of(
    task: BirdMaps, boxes: Float[np.ndarray, "n 4"], rows: Int64[np.ndarray, " m"]
) -> Float[Tensor, "m 2 features"]:
    """What the network sees in cuts of photographs, and in their mirror images; kept.

    Args:
        task: whose photographs.
        boxes: of every photograph, xyxy in pixels of the square.
        rows: the photographs that are cut.
    """
    cache = _cache(task.root, task.backbone) / "cuts"
    digest = hashlib.sha256(rows.astype(np.int64).tobytes())
    digest.update(boxes[rows].astype(np.float32).round(2).tobytes())
    path, photographs = cache / f"{digest.hexdigest()[:16]}.npy", task.photographs
    pooled = _read(path)
    if pooled is None:
        frozen, found = _frozen(task.backbone), []
        for some in _chunks(len(rows), "seeing cuts"):
            images = photographs.crop(rows[some], boxes[rows[some]])
            seen = [_see(frozen, one).pooled for one in (images, images.flip(3))]
            found.append(torch.stack(seen, 1).float().cpu().numpy())
        pooled = np.concatenate(found)
        _write(path, pooled)
        for old in sorted(cache.glob("*.npy"), key=lambda p: p.stat().st_mtime)[:-KEPT_CUTS]:
            old.unlink(missing_ok=True)
    return torch.from_numpy(pooled)


# ---- the task of a localiser ----


@dataclass(frozen=True)
class BirdMaps(Birds):
    """Birds through the frozen network: batches hold maps in place of photographs.

    Args:
        backbone: network of timm.
        threshold: share of its maximum from which class evidence counts.
    """

    backbone: str = LITE0
    threshold: float = 0.25

    @property
    def kept(self) -> Kept:
        """What the network sees in the photographs."""
        return kept(self.root, self.backbone)

    def _batch(
        self, rows: Int64[np.ndarray, " B"], mirrored: Int64[np.ndarray, " B"], device
    ) -> MapBatch:
        photographs, seen = self.photographs, self.kept
        boxes = torch.from_numpy(photographs.boxes[rows]).float()
        flipped = torch.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], 1)
        batch = MapBatch(
            torch.from_numpy(seen.maps[rows, mirrored]).float(),
            torch.from_numpy(photographs.listing.labels[rows]),
            torch.where(torch.from_numpy(mirrored)[:, None] == 1, flipped, boxes),
            sharpen(torch.from_numpy(seen.evidence[rows, mirrored]).float(), self.threshold),
        )
        return MapBatch(*(part.to(device) for part in batch))

    def sample(self, count: int, *, split: Split = "train", generator: torch.Generator) -> MapBatch:
        """Draw `count` photographs, with repetition; of `train`, half are mirrored."""
        require(count >= 1, f"BirdMaps.sample: count must be at least 1, got {count}")
        rows, device = self.rows(split), generator.device
        drawn = torch.randint(len(rows), (count,), generator=generator, device=device).cpu().numpy()
        mirrored = torch.randint(2, (count,), generator=generator, device=device).cpu().numpy()
        return self._batch(rows[drawn], mirrored * (split == "train"), device)

    def batches(
        self,
        split: Split,
        count: int | None = None,
        *,
        batch: int = 100,
        device: torch.device | str = "cpu",
    ) -> Iterator[MapBatch]:
        """The first `count` photographs of `split`, or all, each once and in order."""
        rows = self.rows(split)[:count]
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            yield self._batch(some, np.zeros(len(some), np.int64), device)

    def describe(self) -> str:
        """What the images are, and through which network they are seen."""
        return f"{super().describe()}; through {self.backbone}"


# ---- recipes ----

CUB, TWIN = BirdMaps("cub", classes=50), BirdMaps("twin", classes=12)
# An epoch of the subset's training photographs is 39 updates.
SUBSET_TRAINS = 1_250
WITH_EVIDENCE = LocalizerConfig(reset_every=390, resets=1, evidence=20.0, area=11.0)
# The paper resets every 10 epochs; with every 2, ten resets and the rest take a minute.
AS_IN_THE_PAPER = LocalizerConfig(reset_every=78, resets=10)


def _localizer(name: str, row: str, task: BirdMaps, model: LocalizerConfig, updates: int) -> Recipe:
    return Recipe(
        name,
        row,
        task,
        model,
        updates=updates,
        batch=32,
        rate=2e-3,
        policy_share=5.0,
        warmup=50,
        clip=5.0,
        precision="32-true",
        expects="a minute on one core, once the photographs were seen",
    )


RECIPES = by_name(
    *(
        _localizer(f"birds{part}-localizer{way}", f"Birds, {data}: RAM, {words}", *rest)
        for part, data, task in (("", "CUB subset", CUB), ("-twin", "synthetic twin", TWIN))
        for way, words, *rest in (
            ("", "class evidence", task, WITH_EVIDENCE, 780),
            ("-paper", "cross-entropy alone", task, AS_IN_THE_PAPER, 1_170),
        )
    )
)
TABLES: dict[str, Table] = {}
GROUPS: dict[str, Group] = {}

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
    cam = around_evidence(torch.from_numpy(task.kept.evidence[:, 0]).float(), task.threshold)
    return [
        Cut("truth", "ground truth", truth[None]),
        Cut("truth-larger", "ground truth, 1.2 times as large", grow(truth, 1.2)[None]),
        Cut("central", "best central box", central.expand(1, n, 4)),
        Cut("random", "random box of that size", torch.cat([corner, corner + side], 1)[None]),
        Cut("layercam", "LayerCAM", cam[None]),
    ]


@torch.inference_mode()
def windows_of(model: Localizer, task: BirdMaps) -> Float[Tensor, "n T 4"]:
    """Where a localiser looks on every photograph of a task, whatever its split."""
    maps = task.kept.maps
    parts = np.array_split(np.arange(len(maps)), -(-len(maps) // 250))
    return torch.cat(
        [model(torch.from_numpy(maps[rows, 0]).float(), noisy=False).windows for rows in parts]
    )


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
    for own in boxes:
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
        For each distance of the window's centre from the bird's, in shares of the photograph: the
        mean cross-entropy, and the mean evidence outside.
    """
    batches = [(batch, model.looks(batch.images, noisy=False)) for batch in task.batches(split)]
    rows = []
    for distance in torch.linspace(-0.5, 0.5, 17).tolist():
        losses, outside = [], []
        for batch, looks in batches:
            middle = (batch.boxes[:, 0] + batch.boxes[:, 2]) / 2 + distance * SIDE
            cells = middle / SIDE * MAPS[2]
            moved = replace(looks[-1].grid, c_x=2 * (cells - 0.5) / (MAPS[2] - 1) - 1)
            glimpses = read_glimpse(model.preprocess(batch.images), moved, model.config.size)
            scores = model.f_class(model.f_glimpse(glimpses))
            losses.append(F.cross_entropy(scores, batch.labels, reduction="none"))
            box = moved.boxes(model.config.size, MAPS[1:])
            outside.append(((1 - soft_inside(box, MAPS[1:])) * batch.evidence).sum((1, 2)))
        means = (float(torch.cat(part).mean()) for part in (losses, outside))
        rows.append(
            dict(zip(("distance", "cross_entropy", "outside"), (distance, *means), strict=True))
        )
    return rows


# ---- running all of it ----

FOLDER = records.FOLDER / "birds"
SEEDS = 5
# What a localiser with evidence is chosen from, by validation accuracy of its cuts.
THRESHOLDS, AREAS = (0.25, 0.35), (8.0, 11.0, 15.0)


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
    """Validation accuracy of cuts, for each threshold of the evidence and weight of the area.

    No box is looked at. One thing is changed at a time.
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
        boxes = windows_of(trained(changed, runs), task)[:, -1].clamp(0, SIDE)
        chances = probabilities(task, boxes, "validation")
        right = (chances.argmax(1) == labels[held_out]).float()
        rows.append({"threshold": threshold, "area": area, "accuracy": interval(right[None])})
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
        learnt.append(Cut(name, row, windows[:, :, -1].clamp(0, SIDE)))
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
    """`python -m ramlib.experiments.birds cub`: Table IV from photographs to its record."""
    top = argparse.ArgumentParser(prog="python -m ramlib.experiments.birds", description=__doc__)
    top.add_argument("data", choices=("cub", "twin"))
    top.add_argument("--classes", type=int, help="that the folder names; else as in the book")
    top.add_argument("--runs", type=Path, default=Path("runs"), help="folder of trainings")
    top.add_argument("--seeds", type=int, default=SEEDS, help="of each localiser")
    args = top.parse_args()
    print(run(args.data, args.runs, args.seeds, args.classes))


if __name__ == "__main__":
    main()
