"""Write what the book's figures to touch need: a reader's weights, digits, and still pictures.

python tools/export_browser.py

The scripts in book/_static run without a server and may read no file but another script. So the
weights of `digit` become a script, in int8: each row of a matrix is divided by its largest entry
and rounded to 127 steps either way. The digits are the first four of each class in MNIST's test
split.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg")

import ramlib
from ramlib._files import write_atomically
from ramlib.attention import GAMMA, SHARPNESS, SIGMA_FLOOR
from ramlib.data import mnist
from ramlib.data.cluttered import DIGIT_SIDE, FRAGMENT_SIDE
from ramlib.model import RecurrentAttentionModel
from ramlib.plots import WINDOW_COLOURS

FOLDER = Path(__file__).resolve().parent.parent / "book" / "_static"
RECIPE = "digit"
SIDE = 100
OF_EACH_CLASS = 4
PIECES = 8
NOTE = "// Written by tools/export_browser.py: run it again.\n"


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in int8, and the scale of each row, which times the integers gives it back."""
    scale = weight.abs().amax(1) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def rounded_reader() -> RecurrentAttentionModel:
    """The reader that the browser runs: the one that ships, with rounded weights."""
    model = ramlib.load(RECIPE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                whole, scale = rounded(parameter)
                parameter.copy_(whole * scale[:, None])
    return model


def text(array: np.ndarray) -> str:
    """The bytes of an array in base64."""
    return base64.b64encode(array.tobytes()).decode()


def weights_script() -> str:
    model = ramlib.load(RECIPE)
    state = model.state_dict()
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    whole, real, layers = [], [], []
    for name in names:
        integers, scale = rounded(state[f"{name}.weight"])
        whole.append(integers.flatten())
        real += [scale, state[f"{name}.bias"]]
        layers.append([name, *integers.shape])
    window = model.config.window
    reader = {
        "recipe": RECIPE,
        "side": SIDE,
        "T": model.config.glimpses,
        "N": model.config.size,
        "hidden": model.config.hidden,
        "full_delta": model.f_ext.full_delta,
        "window": [window.smallest, window.start, window.largest],
        "sharpness": SHARPNESS,
        "sigma_floor": SIGMA_FLOOR,
        "gamma": GAMMA,
        "layers": layers,
        "int8": text(torch.cat(whole).numpy()),
        "float32": text(torch.cat(real).numpy().astype("<f4")),
    }
    return f"{NOTE}window.RAMLIB_READER = {json.dumps(reader)};\n"


def chosen_digits() -> Tensor:
    """Indices of the first four test digits of each class."""
    labels = mnist.load("test").labels
    return torch.cat([(labels == k).nonzero()[:OF_EACH_CLASS, 0] for k in range(10)])


def first_scene() -> dict[str, Any]:
    """The canvas that a page opens with: which digit lies where, and which pieces of others."""
    generator = torch.Generator().manual_seed(5)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    count, room = 10 * OF_EACH_CLASS, DIGIT_SIDE - FRAGMENT_SIDE + 1
    place = SIDE - FRAGMENT_SIDE + 1
    pieces = [[draw(high) for high in (count, room, room, place, place)] for _ in range(PIECES)]
    return {"digit": draw(count), "at": [62, 12], "pieces": pieces}


def scene_image(scene: dict[str, Any], clutter: bool = True) -> Tensor:
    """The canvas of a scene, (1, 1, S, S): digit and pieces are added, then clipped."""
    digits = mnist.load("test").images[chosen_digits()] / 255
    image = torch.zeros(SIDE, SIDE)
    x, y = scene["at"]
    image[y : y + DIGIT_SIDE, x : x + DIGIT_SIDE] += digits[scene["digit"]]
    for which, left, top, x, y in scene["pieces"] if clutter else ():
        piece = digits[which, top : top + FRAGMENT_SIDE, left : left + FRAGMENT_SIDE]
        image[y : y + FRAGMENT_SIDE, x : x + FRAGMENT_SIDE] += piece
    return image.clamp(max=1)[None, None]


def digits_script() -> str:
    data = {
        "source": "MNIST test digits, Y. LeCun, C. Cortes, C. Burges, CC BY-SA 3.0",
        "side": SIDE,
        "colours": WINDOW_COLOURS,
        "first": first_scene(),
        "pixels": text(mnist.load("test").images[chosen_digits()].numpy()),
    }
    return f"{NOTE}window.RAMLIB_DIGITS = {json.dumps(data)};\n"


SCRIPTS = {"looking-weights.js": weights_script, "looking-digits.js": digits_script}


def main() -> None:
    """Write the scripts and the stills."""
    for name, make in SCRIPTS.items():
        content = make()
        write_atomically(FOLDER / name, lambda part, content=content: part.write_text(content))


if __name__ == "__main__":
    main()
