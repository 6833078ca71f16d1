"""Figures of the book: images with the windows laid on them, filterbanks, curves, animations.

Functions take tensors, draw on matplotlib axes and return them. An image is drawn in the
coordinates of its boxes: pixel `i` covers `[i, i + 1)`, x runs right and y runs down. Colours are
seaborn's colour-blind-safe ones, and what a colour tells is told by a line style or a number too.
"""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Real
from torch import Tensor

from ramlib._checks import require
from ramlib._extras import needs
from ramlib._files import as_path

with needs("plot"):
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
    from matplotlib import patheffects
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from IPython.display import Markdown

    from ramlib.interface import Rollout

# The members of seaborn's "colorblind" that stand out on black, in an order of large contrasts.
WINDOW_COLOURS = tuple(sns.color_palette("colorblind").as_hex()[i] for i in (1, 9, 8, 6, 2, 4))
WINDOW_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
# A dark rim keeps a light line readable where it crosses a white digit.
_RIM = patheffects.withStroke(linewidth=3.2, foreground="#202020")


def use_book_style() -> None:
    """Set seaborn's and matplotlib's defaults to those of the book's figures."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    mpl.rcParams.update(
        {
            "axes.labelsize": 10,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 10,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "font.size": 10,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "legend.fontsize": 9,
            "legend.frameon": False,
            "legend.title_fontsize": 9,
            "savefig.facecolor": "white",
            "svg.hashsalt": "ramlib",
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
        }
    )


def _pixels(image: Tensor) -> np.ndarray:
    """`(H, W)`, or `(H, W, 3)` for colour, from `(H, W)`, `(1, H, W)` or `(3, H, W)`."""
    array = image.detach().float().cpu().numpy()
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1).squeeze()


def show_image(ax: Axes, image: Real[Tensor, "H W"] | Real[Tensor, "C H W"]) -> Axes:
    """Draw one image, black at 0 and white at 1 or at its brightest pixel.

    An image of bytes is white at 255.

    Args:
        ax: where to draw.
        image: one channel, or three (RGB).

    Raises:
        ValueError: if the image has neither one nor three channels.
    """
    require(
        image.ndim == 2 or image.shape[0] in (1, 3),
        f"show_image: image must have shape (H, W), (1, H, W) or (3, H, W), "
        f"got {tuple(image.shape)}",
    )
    height, width = image.shape[-2:]
    array = _pixels(image)
    white = max(1.0, float(array.max())) if image.is_floating_point() else 255.0
    array = (array / white).clip(0, 1)
    ax.imshow(array, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def draw_windows(
    ax: Axes, windows: Float[Tensor, "T 4"], labels: Sequence[str] | None = None
) -> Axes:
    """Outline the windows of successive looks, each with its number at a corner of its own.

    A window is cut at the image's border: outside it there is nothing to see.

    Args:
        ax: an axes with an image, drawn by `show_image`.
        windows: where each look was, xyxy in pixels: `rollout.windows[i]` for image i of a batch.
        labels: one text per window; numbers from 1 when left out.

    Raises:
        ValueError: if `windows` is not of shape `(T, 4)`, or `labels` has another length.
    """
    require(
        windows.ndim == 2 and windows.shape[1] == 4,
        f"draw_windows: windows must have shape (T, 4), got {tuple(windows.shape)}",
    )
    labels = [str(t + 1) for t in range(len(windows))] if labels is None else labels
    require(
        len(labels) == len(windows),
        f"draw_windows: labels must have length {len(windows)}, got {len(labels)}",
    )
    width, height = max(ax.get_xlim()), max(ax.get_ylim())
    for t, (left, top, right, bottom) in enumerate(windows.tolist()):
        left, right = (min(max(edge, 0), width) for edge in (left, right))
        top, bottom = (min(max(edge, 0), height) for edge in (top, bottom))
        line = window_line(t)
        ax.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                linewidth=1.8,
                path_effects=[_RIM, patheffects.Normal()],
                # Half of a line on the border would be hidden.
                clip_on=False,
                **line,
            )
        )
        at_right, at_bottom = t % 4 in (1, 2), t % 4 in (2, 3)
        # Outside the window, so that it hides nothing of what is looked at, if there is room.
        room = (height - bottom if at_bottom else top) >= 0.08 * height
        ax.annotate(
            labels[t],
            (right if at_right else left, bottom if at_bottom else top),
            xytext=(-3 if at_right else 3, 3 if at_bottom != room else -3),
            textcoords="offset points",
            ha="right" if at_right else "left",
            va="bottom" if at_bottom != room else "top",
            color=line["edgecolor"],
            fontsize=9,
            fontweight="bold",
            path_effects=[_RIM],
        )
    return ax


def window_line(t: int) -> dict:
    """Colour and line style of look `t`, counted from 0, as keywords of a patch."""
    return {
        "edgecolor": WINDOW_COLOURS[t % len(WINDOW_COLOURS)],
        "linestyle": WINDOW_STYLES[t % len(WINDOW_STYLES)],
    }


def show_glimpse(ax: Axes, glimpse: Float[Tensor, "C N N"], t: int) -> Axes:
    """Draw what look `t` (from 0) saw, with its window's number and colour around it.

    Its brightest cell is white: what is asked of a picture is what the look saw, not how dimly.
    """
    brightest = glimpse.max()
    show_image(ax, glimpse / brightest if brightest > 0 else glimpse)
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=2.5, edgecolor=window_line(t)["edgecolor"])
    ax.set_title(str(t + 1), fontsize=9, fontweight="bold")
    return ax


def show_rollout(
    axes: Sequence[Axes] | np.ndarray,
    image: Float[Tensor, "C H W"],
    windows: Float[Tensor, "T 4"],
    glimpses: Float[Tensor, "T C N N"],
    title: str = "",
) -> None:
    """Fill a row of T + 1 axes: the image with its windows, then what each look saw.

    Args:
        axes: T + 1 axes.
        image: what was looked at.
        windows: where; `rollout.windows[i]` for image i of a batch.
        glimpses: what was seen; `rollout.glimpses[i]`.
        title: a few words above the image.

    Raises:
        ValueError: if there are not T + 1 axes.
    """
    looks = len(glimpses)
    require(
        len(axes) == looks + 1,
        f"show_rollout: axes must have length {looks + 1} for {looks} glimpses, got {len(axes)}",
    )
    draw_windows(show_image(axes[0], image), windows)
    axes[0].set_title(title)
    for t in range(looks):
        show_glimpse(axes[t + 1], glimpses[t], t)


def show_rollouts(
    images: Float[Tensor, "B C H W"], rollout: Rollout, titles: Sequence[str] | None = None
) -> np.ndarray:
    """A figure with one row per image: the image with its windows, then what each look saw.

    Args:
        images: what was looked at.
        rollout: what the model returned for them.
        titles: one per image.

    Returns:
        The axes, `(B, T + 1)`.
    """
    rows, looks = rollout.glimpses.shape[:2]
    _, axes = plt.subplots(
        rows,
        looks + 1,
        figsize=(2.1 + 1.25 * looks, 2.0 * rows),
        width_ratios=[1.7] + [1] * looks,
        squeeze=False,
    )
    for b in range(rows):
        title = titles[b] if titles is not None else ""
        show_rollout(axes[b], images[b], rollout.windows[b], rollout.glimpses[b], title)
    return axes


def show_filterbank(ax: Axes, weights: Float[Tensor, "N A"]) -> Axes:
    """Draw a filterbank as the matrix it is: one row per filter, brighter where it weighs more.

    Args:
        ax: where to draw.
        weights: `F[i, a]`, as `gaussian_filterbank` returns it for one image.
    """
    ax.imshow(_pixels(weights), aspect="auto", cmap="cividis", vmin=0)
    ax.set(xlabel="pixel $a$", ylabel="filter $i$")
    ax.yaxis.get_major_locator().set_params(integer=True)
    return ax


def plot_curves(
    frame: pd.DataFrame, x: str, y: str, hue: str | None = None, ax: Axes | None = None, **options
) -> Axes:
    """Draw columns of a table as lines, one per value of `hue`, unlike in colour, dash and marker.

    Args:
        frame: one row per point; several rows of one `x` give a mean and a band.
        x: column along the horizontal axis.
        y: column along the vertical axis.
        hue: column that tells the lines apart.
        ax: where to draw; a new figure when left out.
        options: passed on to `seaborn.lineplot`.
    """
    if ax is None:
        ax = plt.subplots(figsize=(5.5, 3.2))[1]
    apart = {} if hue is None else {"hue": hue, "style": hue, "markers": True}
    if hue is not None and pd.api.types.is_numeric_dtype(frame[hue]):
        apart["palette"] = sns.color_palette("colorblind", frame[hue].nunique())
    sns.lineplot(frame, x=x, y=y, ax=ax, **{**apart, **options})
    ax.grid(axis="y", alpha=0.4)
    return ax


def plot_measures(
    ax: Axes, names: Sequence[str], measures: Sequence[Mapping[str, float]], **options
) -> Axes:
    """Draw shares as dots with their 95 % intervals, one line per name, the first on top.

    Args:
        ax: where to draw.
        names: what was measured.
        measures: `value`, `low` and `high` of each, as `Measure.as_dict` gives them.
        options: passed on to `Axes.errorbar`.

    Raises:
        ValueError: if there is not one measure for each name.
    """
    require(
        len(measures) == len(names),
        f"plot_measures: measures must have length {len(names)}, got {len(measures)}",
    )
    value, low, high = (np.array([m[key] for m in measures]) for key in ("value", "low", "high"))
    places = np.arange(len(names))
    ax.errorbar(
        value, places, xerr=[value - low, high - value], **{"fmt": "o", "capsize": 3, **options}
    )
    ax.set_yticks(places, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.4)
    return ax


def animate_rollout(
    image: Float[Tensor, "C H W"],
    windows: Float[Tensor, "T 4"],
    glimpses: Float[Tensor, "T C N N"],
) -> FuncAnimation:
    """The model looking: frame 0 is the bare image, frame t adds look t and what it saw.

    The last frame, which is the whole of `show_rollout`, is the still to offer beside it.

    Args:
        image: what was looked at.
        windows: where; `rollout.windows[i]` for image i of a batch.
        glimpses: what was seen.
    """
    looks, size = glimpses.shape[0], glimpses.shape[-1]
    # Not pyplot's: the chapter that makes the animation shows the file, not this figure.
    figure = Figure(figsize=(2.1 + 1.25 * looks, 2.2), layout="constrained")
    axes = figure.subplots(1, looks + 1, width_ratios=[1.7] + [1] * looks)

    def draw(seen: int) -> list:
        for t, ax in enumerate(axes):
            ax.clear()
            show_image(ax, image if t == 0 else image.new_ones(1, size, size))
        draw_windows(axes[0], windows[:seen])
        for t in range(seen):
            show_glimpse(axes[t + 1], glimpses[t], t)
        return []

    # Lay out the fullest frame and keep it, so that nothing jumps.
    draw(looks)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return FuncAnimation(figure, draw, frames=looks + 1, init_func=lambda: [])


def save_animation(animation: FuncAnimation, path: str | Path, *, seconds: float = 1.0) -> Path:
    """Write an animation as a GIF that repeats, whole or not at all.

    Args:
        animation: what `animate_rollout` returned.
        path: the file, overwritten if it is there.
        seconds: how long a frame stays.
    """
    path = as_path(path)
    partial = path.with_name(f".{path.stem}.partial.gif")
    try:
        animation.save(partial, PillowWriter(fps=1 / seconds), dpi=100)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def show_source(thing: Callable) -> Markdown:
    """The package's own source of a function or class, without its docstring, for a chapter.

    It needs IPython, which the book's extra brings.
    """
    from IPython.display import Markdown

    source = textwrap.dedent(inspect.getsource(thing))
    lines = source.splitlines()
    definition = ast.parse(source).body[0]
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    code = "\n".join(lines)
    return Markdown(f"```python\n{code}\n```")
