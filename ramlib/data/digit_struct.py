"""SVHN's list of digits and boxes, `digitStruct.mat`: how it is read, and how one is written.

The file is MATLAB's version 7.3, which is HDF5. `digitStruct/name` and `digitStruct/bbox` hold one
object reference per image, to the file's name (its characters as 16-bit numbers) and to a group
with `height`, `label`, `left`, `top` and `width`. Each of these five is a number where the image
has one digit, and a column of references to numbers where it has several. The digit 0 has the
label 10. Pixels are counted from 0 (SVHN's smallest `left` and `top` are 0, but for a few boxes
that leave the image).

Netzer et al. (2011), format 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from ramlib._checks import require
from ramlib._extras import bar, later, quietly
from ramlib._files import as_path, write_atomically

h5py = later("h5py", "train")

FILE = "digitStruct.mat"
FIELDS = ("height", "label", "left", "top", "width")
ZERO = 10  # the label of the digit 0

# What h5py raises, depending on where the damage is.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class DigitStruct:
    """What the file says: the digits of all images, one after another.

    Args:
        names: file name of each image.
        counts: digits in each image.
        digits: 0..9, in the order of the boxes, which is the order of reading.
        boxes: xyxy in pixels; they may leave the image.

    Raises:
        ValueError: if the lengths do not agree.
    """

    names: list[str]
    counts: Int64[np.ndarray, " images"]
    digits: UInt8[np.ndarray, " digits"]
    boxes: Float32[np.ndarray, "digits 4"]

    def __post_init__(self) -> None:
        total = int(self.counts.sum())
        require(
            len(self.names) == len(self.counts) and len(self.digits) == len(self.boxes) == total,
            f"DigitStruct: {len(self.names)} names and {len(self.counts)} counts, which sum to "
            f"{total}, do not fit {len(self.digits)} digits and {len(self.boxes)} boxes",
        )

    @property
    def starts(self) -> Int64[np.ndarray, " images"]:
        """Where each image's digits begin."""
        return self.counts.cumsum() - self.counts


def _read_object(
    file: h5py.File, reference: h5py.Reference
) -> h5py.h5d.DatasetID | h5py.h5g.GroupID:
    # h5py's upper layer takes ten times as long, and there are millions of these.
    return h5py.h5r.dereference(reference, file.id)


def _values(dataset: h5py.h5d.DatasetID) -> np.ndarray:
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values.ravel()


def _numbers(file: h5py.File, group: h5py.h5g.GroupID, field: str) -> list[float]:
    values = _values(h5py.h5d.open(group, field.encode()))
    if values.dtype == object:
        return [float(_values(_read_object(file, reference)).item()) for reference in values]
    return [float(value) for value in values]


def _entry(file: h5py.File, name: h5py.Reference, bbox: h5py.Reference) -> tuple[str, np.ndarray]:
    """An image's file name and its `(digits, 5)` numbers in the order of `FIELDS`."""
    text = "".join(map(chr, _values(_read_object(file, name))))
    group = _read_object(file, bbox)
    columns = [_numbers(file, group, field) for field in FIELDS]
    return text, np.array(columns, np.float64).T.reshape(-1, len(FIELDS))


def _check(where: str, name: str, numbers: np.ndarray) -> None:
    """Refuse an entry that cannot be what it says, by its name."""
    require(
        name != "" and name.isprintable() and Path(name).name == name,
        f"{where}: a file name is {name!r}, which is not the name of a file beside it",
    )
    height, label, _, _, width = numbers.T
    require(len(numbers) > 0, f"{where}: {name} has no digit")
    require(bool(np.isfinite(numbers).all()), f"{where}: {name} has a box that is not finite")
    require(
        bool(((label >= 1) & (label <= ZERO) & (label % 1 == 0)).all()),
        f"{where}: the labels of {name} must be 1 to {ZERO}, got {label.tolist()}",
    )
    require(
        bool(((height > 0) & (width > 0)).all()),
        f"{where}: {name} has a box of height {height.min():g} and width {width.min():g}; both "
        "must be above 0",
    )


def read(folder: Path | str, *, quiet: bool = False) -> DigitStruct:
    """Read `folder/digitStruct.mat`, with a progress bar.

    Args:
        folder: of one partition, such as `train`.
        quiet: without the bar.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or an entry says what cannot be: no digit, a label
            outside 1 to 10, a box without area, a name that another entry has too.
    """
    path = as_path(folder) / FILE
    cure = "unpack the official archive again, or write the twin again"
    if not path.is_file():
        raise FileNotFoundError(f"digit_struct.read: no file {path}; {cure}")
    names, numbers = [], []
    try:
        with h5py.File(path, "r") as file, quietly(quiet):
            references = [file["digitStruct"][field][()].ravel() for field in ("name", "bbox")]
            require(
                len(references[0]) == len(references[1]) > 0,
                f"{len(references[0])} names and {len(references[1])} lists of boxes",
            )
            columns = zip(*references, strict=True)
            title = f"reading {path.parent.name}/{FILE}"
            for name, bbox in bar(columns, title, len(references[0])):
                entry = _entry(file, name, bbox)
                names.append(entry[0])
                numbers.append(entry[1])
    except _DAMAGE as error:
        raise ValueError(
            f"digit_struct.read: {path} is damaged at entry {len(names) + 1} ({error}); {cure}"
        ) from error
    where = f"digit_struct.read: {path}"
    for name, own in zip(names, numbers, strict=True):
        _check(where, name, own)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{where}: {twice} is listed twice")
    height, label, left, top, width = np.concatenate(numbers).T
    return DigitStruct(
        names,
        np.array([len(own) for own in numbers], np.int64),
        (label % ZERO).astype(np.uint8),
        np.stack([left, top, left + width, top + height], -1).astype(np.float32),
    )


def write(struct: DigitStruct, folder: Path | str) -> Path:
    """Write `folder/digitStruct.mat`, whole or not at all.

    Equal numbers are stored once and referred to many times, which readers do not notice.

    Raises:
        OSError: if the folder cannot be written.
    """
    path = as_path(folder) / FILE
    left, top, right, bottom = struct.boxes.T.astype(np.float64)
    label = np.where(struct.digits == 0, ZERO, struct.digits).astype(np.float64)
    columns = dict(zip(FIELDS, (bottom - top, label, left, top, right - left), strict=True))

    def write_file(temporary: Path) -> None:
        # The oldest layout with small headers, since this file is nothing but headers.
        with h5py.File(temporary, "w", libver="v108") as file:
            store, top_level = file.create_group("#refs#"), file.create_group("digitStruct")
            stored: dict[float, h5py.Reference] = {}

            def refer(number: float) -> h5py.Reference:
                if number not in stored:
                    data = np.array([[number]])
                    stored[number] = store.create_dataset(f"v{len(stored)}", data=data).ref
                return stored[number]

            shape = (len(struct.names), 1)
            for field in ("bbox", "name"):
                top_level.create_dataset(field, shape, h5py.ref_dtype)
            names, groups = (np.empty(shape, h5py.ref_dtype) for _ in range(2))
            for i, (name, start, count) in enumerate(
                zip(struct.names, struct.starts, struct.counts, strict=True)
            ):
                characters = np.array([[ord(c)] for c in name], np.uint16)
                names[i, 0] = store.create_dataset(f"n{i}", data=characters).ref
                group = store.create_group(f"b{i}")
                groups[i, 0] = group.ref
                for field, column in columns.items():
                    own = column[start : start + count]
                    if count == 1:
                        group.create_dataset(field, data=own[:, None])
                    else:
                        cell = np.empty((count, 1), h5py.ref_dtype)
                        cell[:, 0] = [refer(number) for number in own.tolist()]
                        group.create_dataset(field, data=cell)
            top_level["name"][:], top_level["bbox"][:] = names, groups

    write_atomically(path, write_file)
    return path
