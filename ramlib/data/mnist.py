"""MNIST, shipped inside the package, in three splits that never mix.

LeCun, Cortes and Burges's four IDX files, gzipped. The first 50,000 training digits are `train`,
the last 10,000 are `validation`, and the official test set is `test`.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

Split = Literal["train", "validation", "test"]

FOLDER = Path(__file__).parent / "mnist_files"

# md5 of the unpacked files: the values every MNIST mirror publishes.
DIGESTS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

# split -> (file prefix, first digit, one past the last)
SPLITS: dict[str, tuple[str, int, int]] = {
    "train": ("train", 0, 50_000),
    "validation": ("train", 50_000, 60_000),
    "test": ("t10k", 0, 10_000),
}


class Digits(NamedTuple):
    """The digits of one split: `images` are grey levels 0..255, `labels` are 0..9."""

    images: UInt8[Tensor, "n 28 28"]
    labels: Int64[Tensor, " n"]


def read_idx(path: Path) -> np.ndarray:
    """Unpack one gzipped IDX file of unsigned bytes, after checking its digest.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is damaged: it does not unpack, or its digest is not MNIST's.
    """
    cure = "reinstall ramlib, or restore the file from any MNIST mirror"
    if not path.is_file():
        raise FileNotFoundError(f"read_idx: no file {path}; {cure}")
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, gzip.zlib.error) as error:
        raise ValueError(f"read_idx: {path} does not unpack ({error}); {cure}") from error
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    expected = DIGESTS.get(path.stem)
    if digest != expected:
        raise ValueError(f"read_idx: {path} is damaged: md5 {digest}, expected {expected}; {cure}")
    # IDX: two zero bytes, the type, the number of dimensions, each dimension as big-endian u32.
    ndim = raw[3]
    shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


@cache
def _read_pair(prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(FOLDER / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(FOLDER / f"{prefix}-labels-idx1-ubyte.gz")
    return images, labels


@lru_cache(maxsize=8)
def load(split: Split, device: torch.device | str = "cpu") -> Digits:
    """The digits of one split, on `device`. Read once per process and device.

    Raises:
        ValueError: if `split` is not `train`, `validation` or `test`, or a file is damaged.
        FileNotFoundError: if a file is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"mnist.load: split must be one of {', '.join(SPLITS)}, got {split!r}")
    prefix, start, stop = SPLITS[split]
    images, labels = (part[start:stop] for part in _read_pair(prefix))
    return Digits(
        torch.from_numpy(images.copy()).to(device),
        torch.from_numpy(labels.astype(np.int64)).to(device),
    )
