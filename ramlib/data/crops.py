"""Cutting boxes out of photographs, and keeping what was cut.

Whatever is kept lies in the user's cache, one byte a channel, and is mapped into memory, so that a
quarter of a million photographs pass through in bounded memory and are read once. All of it can be
made again: a file that is missing, damaged or of another shape is, and what was made of files that
have changed since is removed. A file appears when it is complete, so an interrupted writer leaves
nothing behind, and of two writers at once the later one wins with the same content.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, UInt8

from ramlib._checks import require
from ramlib._extras import bar, later, quietly
from ramlib._files import as_path, write_atomically

pil = later("PIL.Image", "train")
platformdirs = later("platformdirs", "train")

Mode = Literal["L", "RGB"]  # Pillow's words for grey and for colours

# Part of the cache's key: raise it when a crop would come out differently.
_VERSION = 1
_CHUNK = 1_000
# By mode, Pillow's numbers of a filter: bilinear, and bicubic, as networks of ImageNet expect it.
_FILTERS = {"L": 2, "RGB": 3}


def expand_boxes(boxes: Float[np.ndarray, "n 4"], share: float) -> Float64[np.ndarray, "n 4"]:
    """Grow boxes about their centres by `share` of their width and of their height."""
    low, high = boxes[:, :2].astype(float), boxes[:, 2:].astype(float)
    margin = share / 2 * (high - low)
    return np.concatenate([low - margin, high + margin], 1)


def open_photograph(path: Path, mode: Mode) -> pil.Image:
    """A whole photograph, grey or in colours, whatever its own kind.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as an image.
    """
    try:
        with pil.open(path) as photograph:
            return photograph.convert(mode)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(
            f"crops: {path} cannot be read as an image ({error}); unpack the official archive again"
        ) from error


def cut(
    path: Path, box: Float64[np.ndarray, " 4"] | None, side: int, mode: Mode = "L"
) -> tuple[UInt8[np.ndarray, "side side *channels"], Float64[np.ndarray, " 4"]]:
    """Cut `box` out of a photograph, scaled to a square.

    What leaves the photograph is cut off before the scaling: no pixel is made up.

    Args:
        path: of the image.
        box: xyxy in pixels; None for the whole photograph.
        side: of the square, in pixels.
        mode: grey or colours.

    Returns:
        The levels, and the box that was really cut.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as an image, or the box lies outside it.
    """
    photograph = open_photograph(path, mode)
    whole = np.array([0.0, 0.0, *photograph.size])
    box = whole if box is None else box
    frame = np.concatenate([box[:2].clip(min=0), np.minimum(box[2:], photograph.size)])
    require(
        bool((frame[:2] < frame[2:]).all()),
        f"crops: the box {box.round(1).tolist()} lies outside {path}, whose size is "
        f"{photograph.size}",
    )
    square = photograph.resize((side, side), _FILTERS[mode], box=tuple(frame))
    return np.asarray(square), frame


# ---- the cache: everything in it can be made again ----


def cache_folder(kind: str) -> Path:
    """Where what was made of one kind of data is kept: in `RAMLIB_CACHE`, or the usual cache."""
    named = os.environ.get("RAMLIB_CACHE")
    try:
        return as_path(named or platformdirs.user_cache_path("ramlib")) / kind
    except (FileNotFoundError, RuntimeError) as error:
        raise FileNotFoundError(
            "crops: there is no home folder to keep crops in; name a folder as RAMLIB_CACHE"
        ) from error


def fingerprint(folders: Sequence[Path]) -> str:
    """A digest of the name, size and time of every file in the folders."""
    digest = hashlib.sha256(str(_VERSION).encode())
    for folder in folders:
        with os.scandir(folder) as entries:
            files = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries)
        digest.update(repr((folder.name, files)).encode())
    return digest.hexdigest()[:16]


def cache_of(kind: str, place: object, folders: Sequence[Path]) -> Path:
    """The folder for what was made of these files; what was made of older ones is removed.

    Args:
        kind: of data, as in `cache_folder`.
        place: what the folder is for, whatever its files hold now: its `repr` is the key.
        folders: those whose files are read.

    Raises:
        OSError: if the cache cannot be written.
    """
    own = hashlib.sha256(repr(place).encode()).hexdigest()[:16]
    cache = cache_folder(kind) / own / fingerprint(folders)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"crops: the cache {cache} cannot be written ({error.strerror}); name another folder "
            "as RAMLIB_CACHE"
        ) from error
    for other in cache.parent.iterdir():
        if other != cache:
            shutil.rmtree(other, ignore_errors=True)
    return cache


def mapped(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray | None:
    """An array from a file of the cache, mapped into memory; None if it is not there and whole."""
    try:
        # Copy-on-write: nothing is read before it is used, and nothing is ever written back.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == dtype else None


def write_mapped(
    path: Path, shape: tuple[int, ...], dtype: type, fill: Callable[[np.ndarray], object]
) -> np.ndarray:
    """Let `fill` write an array in a file, and map it; the file appears when it is complete."""

    def write(temporary: Path) -> None:
        array = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
        if shutil.disk_usage(path.parent).free < array.nbytes:  # writing to it would kill us
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fill(array)
        array.flush()

    write_atomically(path, write)
    return np.load(path, mmap_mode="c", allow_pickle=False)


def cut_all(
    cache: Path,
    name: str,
    paths: Sequence[Path],
    boxes: Iterable[Float64[np.ndarray, " 4"] | None],
    side: int,
    mode: Mode = "L",
    *,
    quiet: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a box out of each photograph, or take all that was cut before from the cache.

    Args:
        cache: from `cache_of`.
        name: of the crops there.
        paths: of the n photographs.
        boxes: of each, as `cut` takes it.
        side: of the squares, in pixels.
        mode: grey or colours.
        quiet: without a progress bar.

    Returns:
        Levels of one byte, `(n, S, S)` or `(n, S, S, 3)`, and the boxes that were cut, `(n, 4)`.
    """
    n = len(paths)
    shape = (n, side, side) if mode == "L" else (n, side, side, 3)
    path, frames_path = cache / f"{name}.npy", cache / f"{name}-frames.npy"
    images, frames = mapped(path, shape, np.uint8), mapped(frames_path, (n, 4), np.float64)
    if images is not None and frames is not None:
        return images, np.array(frames)
    frames, boxes = np.empty((n, 4)), list(boxes)

    def cuts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, n, _CHUNK):
                rows = range(start, min(start + _CHUNK, n))
                yield from pool.map(lambda i: cut(paths[i], boxes[i], side, mode), rows)

    def fill(images: np.ndarray) -> None:
        with quietly(quiet):
            for i, done in enumerate(bar(cuts(), f"cutting {name} crops", n)):
                images[i], frames[i] = done

    images = write_mapped(path, shape, np.uint8, fill)
    write_mapped(frames_path, (n, 4), np.float64, lambda array: array.__setitem__(..., frames))
    return images, frames
