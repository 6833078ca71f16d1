"""A tiny folder in CUB-200-2011's layout, written by hand."""

import numpy as np
from PIL import Image


def write_cub(root, classes=3, train=6, test=2, size=(40, 30), seed=0):
    """Noise with a box, class by class, training images first; numbered with gaps."""
    rng = np.random.default_rng(seed)
    lists = {name: [] for name in LISTS}
    number = 5
    for row in range(classes):
        name = f"{row + 7:03d}.Kind_{row}"
        lists["classes"].append(f"{row + 7} {name}")
        (root / "images" / name).mkdir(parents=True)
        for index in range(train + test):
            number += 2
            file = f"{name}/Kind_{row}_{number}.jpg"
            noise = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(noise).save(root / "images" / file, quality=95)
            lists["images"].append(f"{number} {file}")
            lists["image_class_labels"].append(f"{number} {row + 7}")
            lists["bounding_boxes"].append(f"{number} {4 + row}.0 3.0 20.0 15.0")
            lists["train_test_split"].append(f"{number} {int(index < train)}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


LISTS = ("images", "classes", "image_class_labels", "bounding_boxes", "train_test_split")


def edit(path, old, new):
    """Replace the first `old` in a list."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
