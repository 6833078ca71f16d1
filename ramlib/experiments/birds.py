"""Birds: photographs through a frozen network, and localisers that learn on what it sees.

Photographs pass through the network once; their maps, and the class evidence on them, lie in the
cache, and a localiser trains on those. What its boxes are worth is measured in `localisation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

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
    load,
    split_rows,
)
from ramlib.data.mnist import Split
from ramlib.experiments.recipe import Group, Recipe, Table, by_name
from ramlib.models.features import LITE0, FrozenMaps, Seen, layer_cam
from ramlib.models.localizer import (
    LocalizerConfig,
    MapBatch,
    sharpen,
)

MAPS = (112, 16, 16)
L2 = 0.1
BATCH = 32

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


def cache(root: Path, backbone: str) -> Path:
    """Where what a network sees in a folder is kept."""
    listing = load(root).listing
    folders = sorted({path.parent for path in listing.paths})
    return crops.cache_of("bird-maps", (str(root.resolve()), backbone, MAPS), [root, *folders])


def chunks(n: int, title: str) -> Iterator[np.ndarray]:
    """The rows of `n` photographs, some at a time, on a progress bar."""
    rows = np.arange(n)
    return iter(bar([rows[i : i + BATCH] for i in range(0, n, BATCH)], title, -(-n // BATCH)))


def see(frozen: FrozenMaps, images: Tensor, *, graph: bool = False) -> Seen:
    """What a network sees, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return frozen.see(images.to(device), graph=graph)


def in_half_the_bits(backbone: str) -> FrozenMaps:
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
    photographs, folder = load(root), cache(root, backbone)
    n, frozen = len(photographs.sizes), in_half_the_bits(backbone)
    shape = (n, 2, *MAPS)
    maps = crops.mapped(folder / "maps.npy", shape, np.float16)
    pooled = read_array(folder / "pooled.npy")
    if maps is None or pooled is None:
        found: list[np.ndarray] = []

        def fill(array: np.ndarray) -> None:
            for rows in chunks(n, "seeing photographs"):
                images = photographs.of(rows).images
                seen = [see(frozen, one) for one in (images, images.flip(3))]
                array[rows] = torch.stack([one.maps for one in seen], 1).half().cpu().numpy()
                found.append(torch.stack([one.pooled for one in seen], 1).float().cpu().numpy())

        maps = crops.write_mapped(folder / "maps.npy", shape, np.float16, fill)
        pooled = np.concatenate(found)
        write_array(folder / "pooled.npy", pooled)
    evidence = read_array(folder / "evidence.npy")
    if evidence is None:
        evidence = _evidence(photographs, pooled, frozen)
        write_array(folder / "evidence.npy", evidence)
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


def read_array(path: Path) -> np.ndarray | None:
    """An array of the cache; None if it is not there and whole."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def write_array(path: Path, array: np.ndarray) -> None:
    """Keep an array; its file appears when it is complete."""
    crops.write_mapped(path, array.shape, array.dtype.type, lambda a: a.__setitem__(..., array))


def _evidence(photographs: Photographs, pooled: np.ndarray, frozen: FrozenMaps) -> np.ndarray:
    """LayerCAM of a probe's score for the class, above its mean over classes."""
    probe, labels = _own_probe(photographs, torch.from_numpy(pooled))
    evidence = np.empty((len(labels), 2, *MAPS[1:]), np.float32)
    for rows in chunks(len(labels), "gathering evidence"):
        images = photographs.of(rows).images
        for place, one in enumerate((images, images.flip(3))):
            seen = see(frozen, one, graph=True)
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
WITH_EVIDENCE = LocalizerConfig(reset_every=390, resets=1, evidence=20.0, area=15.0)
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


def _resets(seed: int) -> Iterator[Recipe]:
    """The paper's localiser, without its resets, and with a classifier that reads the memory."""
    base = RECIPES["birds-localizer-paper"]
    for name, row, changes in (
        ("with", "resets, reads the glimpse", {}),
        ("without", "no resets, reads the glimpse", {"reset_every": None}),
        ("memory", "resets, reads the memory", {"reads": "memory"}),
    ):
        model = replace(base.model, **changes)
        yield replace(base, name=f"birds-resets-{name}-{seed}", row=row, model=model, seed=seed)


GROUPS = {
    "birds-resets": Group(
        "Do resets of the last layer, and a classifier of glimpses, help against overfitting?",
        tuple(recipe for seed in range(3) for recipe in _resets(seed)),
        images=250,
        every=390,
    )
}
