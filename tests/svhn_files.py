"""Folders like the official ones, written here entry by entry with h5py's upper layer."""

import h5py
import numpy as np
from PIL import Image

FIELDS = ("height", "label", "left", "top", "width")


def write_list(folder, entries):
    """`digitStruct.mat` of `entries`: (file name, [(label, left, top, width, height), ...]).

    As in the official files: a number stands in its field where there is one digit, and the field
    refers to numbers where there are several.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "digitStruct.mat", "w") as file:
        store = file.create_group("#refs#")
        count = iter(range(10**6))

        def keep(data):
            return store.create_dataset(f"r{next(count)}", data=data).ref

        names, groups = [], []
        for name, digits in entries:
            names.append(keep(np.array([[ord(c)] for c in name], np.uint16)))
            group = store.create_group(f"r{next(count)}")
            groups.append(group.ref)
            for field in FIELDS:
                place = ("label", "left", "top", "width", "height").index(field)
                numbers = [float(digit[place]) for digit in digits]
                if len(numbers) == 1:
                    group.create_dataset(field, data=[[numbers[0]]])
                else:
                    cell = group.create_dataset(field, (len(numbers), 1), h5py.ref_dtype)
                    for row, number in enumerate(numbers):
                        cell[row, 0] = keep([[number]])
        top = file.create_group("digitStruct")
        for field, references in (("name", names), ("bbox", groups)):
            column = top.create_dataset(field, (len(entries), 1), h5py.ref_dtype)
            for row, reference in enumerate(references):
                column[row, 0] = reference


def write_image(path, array):
    """A colour PNG from grey levels `(H, W)` or colours `(H, W, 3)`."""
    array = np.asarray(array, np.uint8)
    Image.fromarray(array).convert("RGB").save(path)


def write_folder(folder, entries, size=(40, 30), seed=0):
    """A partition: the list, and an image of noise, `size` (W, H), for each entry."""
    write_list(folder, entries)
    rng = np.random.default_rng(seed)
    for name, _ in entries:
        write_image(folder / name, rng.integers(0, 256, (size[1], size[0], 3)))


def some_entries(n, seed=0):
    """`n` entries of one to five digits whose boxes lie within 40x30 pixels."""
    rng = np.random.default_rng(seed)
    entries = []
    for i in range(n):
        count = 1 + i % 5
        digits = [
            (int(rng.integers(1, 11)), 5 + 6 * place, int(rng.integers(6, 10)), 5, 12)
            for place in range(count)
        ]
        entries.append((f"{i + 1}.png", digits))
    return entries
