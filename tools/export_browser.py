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
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg")

import ramlib
from ramlib._files import write_atomically
from ramlib.attention import GAMMA, SHARPNESS, SIGMA_FLOOR
from ramlib.data import mnist
from ramlib.data.cluttered import DIGIT_SIDE, FRAGMENT_SIDE
from ramlib.glimpse import GlimpseGrid, gaussian_filterbank, read_glimpse
from ramlib.model import RecurrentAttentionModel
from ramlib.plots import (
    WINDOW_COLOURS,
    draw_windows,
    show_glimpse,
    show_image,
    show_rollout,
    use_book_style,
)

BOOK = Path(__file__).resolve().parent.parent / "book"
FOLDER = BOOK / "_static"
STILLS = BOOK / "figures"
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


def first_scene(seed: int = 3) -> dict[str, Any]:
    """The canvas that a page opens with: which digit lies where, and which pieces of others."""
    generator = torch.Generator().manual_seed(seed)

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


# ---- the stills: what a page shows before any script runs, or where none may ----


def grid_at(
    x: float, y: float, width: float, sigma: float | None = None, *, size: int = 12
) -> GlimpseGrid:
    """A square window of `width` pixels around pixel (x, y); sigma as in chapter 3 by default."""
    delta = width / size
    centre = (2 * place / (SIDE - 1) - 1 for place in (x, y))
    numbers = (*centre, delta, delta, delta / 2 + 0.3 if sigma is None else sigma, 1.0)
    return GlimpseGrid(*(torch.tensor([float(number)]) for number in numbers))


def still_of_model() -> plt.Figure:
    """The first canvas, the windows on it, what they see, and how likely each class is."""
    image = scene_image(first_scene())
    with torch.inference_mode():
        rollout = rounded_reader()(image)
    figure, axes = plt.subplots(1, 6, figsize=(9.6, 2.1), width_ratios=[1.7, 1, 1, 1, 1, 1.7])
    show_rollout(axes[:5], image[0], rollout.windows[0], rollout.glimpses[0])
    axes[5].bar(range(10), rollout.logits[0, -1].softmax(-1).tolist())
    axes[5].set(xticks=range(10), yticks=[0, 1], ylim=(0, 1), xlabel="class", title="probability")
    return figure


def push_of(image: Tensor, grid: GlimpseGrid, size: int = 12) -> tuple[float, float]:
    """How the sum of a glimpse changes with its grid's centre, per pixel."""
    c_x, c_y = (value.clone().requires_grad_() for value in (grid.c_x, grid.c_y))
    moved = GlimpseGrid(c_x, c_y, grid.delta_x, grid.delta_y, grid.sigma, grid.gamma)
    total = read_glimpse(image, moved, size).sum()
    return tuple(2 / (SIDE - 1) * g.item() for g in torch.autograd.grad(total, (c_x, c_y)))


def still_of_grid() -> plt.Figure:
    """A window beside the digit, its two filterbanks, its glimpse and its gradient."""
    scene = first_scene()
    image = scene_image(scene)
    x, y = scene["at"][0] + 21, scene["at"][1] + 17
    grid = grid_at(x, y, 30, 1.25)
    figure, axes = plt.subplots(
        2, 2, figsize=(4.4, 4.4), width_ratios=[100, 20], height_ratios=[100, 20]
    )
    draw_windows(show_image(axes[0, 0], image[0]), grid.boxes(12, (SIDE, SIDE)), [""])
    push = torch.tensor(push_of(image, grid))
    tip = 6 * (push.norm().log10() + 3) * push / push.norm()
    axes[0, 0].annotate(
        "",
        (x + 0.5 + tip[0].item(), y + 0.5 + tip[1].item()),
        xytext=(x + 0.5, y + 0.5),
        arrowprops={"arrowstyle": "->", "color": WINDOW_COLOURS[1], "lw": 2},
    )
    centres = grid.centres((SIDE, SIDE))
    f_x, f_y = (
        gaussian_filterbank(centre, grid.delta_x, grid.sigma, filters=12, pixels=SIDE)[0]
        for centre in centres
    )
    for ax, weights in ((axes[0, 1], f_y.mT), (axes[1, 0], f_x)):
        show_image(ax, weights / weights.max())
    axes[0, 1].set_title("$F_y$")
    axes[1, 0].set_xlabel("$F_x$")
    show_image(axes[1, 1], read_glimpse(image, grid, 12)[0])
    for ax in axes.flat:
        ax.set_aspect("auto")  # so that rows and columns meet
    return figure


def descent(image: Tensor, start: tuple, target: tuple, width: float, steps: int = 80) -> Tensor:
    """The centres, in pixels, of chapter 3's search: Adam on a window that should see the digit."""
    half = (SIDE - 1) / 2
    centre = (torch.tensor(start) / half - 1).requires_grad_()
    wanted = read_glimpse(image, grid_at(*target, width), 12)
    still = grid_at(*start, width)
    optimiser = torch.optim.Adam([centre], 0.03)
    path = []
    for _ in range(steps + 1):
        path.append(half * (centre.detach().clone() + 1))
        grid = GlimpseGrid(
            centre[:1], centre[1:], still.delta_x, still.delta_y, still.sigma, still.gamma
        )
        optimiser.zero_grad()
        (read_glimpse(image, grid, 12) - wanted).square().sum().backward()
        optimiser.step()
    return torch.stack(path)


def still_of_descent() -> plt.Figure:
    """The way of a window to the digit, and what it sees at both ends."""
    scene = first_scene()
    image = scene_image(scene, clutter=False)
    x, y = scene["at"]
    path = descent(image, (float(x), y + 24.0), (x + 13.5, y + 13.5), 48)
    ends = [grid_at(*path[k].tolist(), 48) for k in (0, -1)]
    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.6), width_ratios=[1.7, 1, 1])
    boxes = torch.cat([grid.boxes(12, (SIDE, SIDE)) for grid in ends])
    draw_windows(show_image(axes[0], image[0]), boxes, ["start", "end"])
    axes[0].plot(*(path.mT + 0.5), color=WINDOW_COLOURS[0])
    for t, grid in enumerate(ends):
        seen = read_glimpse(image, grid, 12)[0]
        show_glimpse(axes[t + 1], seen, t).set_title(("start", "end")[t])
    return figure


SCRIPTS = {"looking-weights.js": weights_script, "looking-digits.js": digits_script}
PICTURES = {
    "live-model.png": still_of_model,
    "live-grid.png": still_of_grid,
    "live-descent.png": still_of_descent,
}


def main() -> None:
    """Write the scripts and the stills."""
    for name, make in SCRIPTS.items():
        content = make()
        write_atomically(FOLDER / name, lambda part, content=content: part.write_text(content))
    use_book_style()
    for name, make in PICTURES.items():
        figure = make()
        write_atomically(
            STILLS / name,
            lambda part, figure=figure: figure.savefig(part, dpi=200, format="png"),
        )
        plt.close(figure)


if __name__ == "__main__":
    main()
