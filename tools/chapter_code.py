"""Run a chapter's code cells in this process, with other settings in its first cell."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import torch

from ramlib import plots
from ramlib.glimpse import GlimpseGrid


def code_cells(text: Path) -> list[tuple[list[str], str]]:
    """Tags and source of each code cell."""
    cells = jupytext.read(text).cells
    return [
        (cell.metadata.get("tags", []), cell.source) for cell in cells if cell.cell_type == "code"
    ]


@dataclass
class Drawn:
    """Windows drawn on a figure: the boxes, and the sides of the picture below them."""

    windows: torch.Tensor
    picture: tuple[int, int]


@dataclass
class Run:
    """What was left when a chapter had run."""

    names: dict = field(default_factory=lambda: {"__name__": "chapter"})
    drawn: list[Drawn] = field(default_factory=list)
    # boxes that a grid computed, for how many filters, on an image of which height and width
    laid: list[tuple[torch.Tensor, int, tuple[int, int]]] = field(default_factory=list)

    def misplaced(self) -> list[Drawn]:
        """The windows that no grid laid on a picture of that size."""
        return [drawn for drawn in self.drawn if not self._was_laid(drawn)]

    def _was_laid(self, drawn: Drawn) -> bool:
        rows = [
            boxes.reshape(-1, 4)
            for boxes, filters, image_size in self.laid
            if tuple(image_size) == drawn.picture and filters == self.names["N"]
        ]
        if not rows:
            return False
        gap = (drawn.windows.float()[:, None] - torch.cat(rows).float()).abs().amax(-1)
        return bool((gap.amin(1) < 1e-3).all())


def run(text: Path, settings: str, monkeypatch) -> Run:
    """Execute the chapter with `settings` after its first cell, and watch what it draws.

    Cells that only a trained model can pass are left out: settings here train for a few updates.
    """
    done = Run()
    boxes, draw = GlimpseGrid.boxes, plots.draw_windows

    def watched_boxes(grid, size, image_size):
        found = boxes(grid, size, image_size)
        done.laid.append((found.detach(), size, tuple(image_size)))
        return found

    def watched_draw(ax, windows, labels=None):
        height, width = ax.images[0].get_array().shape[:2]
        done.drawn.append(Drawn(windows.detach(), (height, width)))
        return draw(ax, windows, labels)

    monkeypatch.setattr(GlimpseGrid, "boxes", watched_boxes)
    monkeypatch.setattr(plots, "draw_windows", watched_draw)
    for tags, source in code_cells(text):
        if "needs-training" in tags:
            continue
        exec(compile(source, text.name, "exec"), done.names)
        if "settings" in tags:
            exec(compile(settings, "settings", "exec"), done.names)
        plt.close("all")
    return done


def settings_of(text: Path) -> set[str]:
    """The names that a chapter's first code cell sets."""
    tags, source = code_cells(text)[0]
    assert "settings" in tags, f"the first code cell of {text.name} has to name its settings"
    return {
        name
        for line in source.splitlines()
        for name in re.findall(r"[A-Z][A-Z_0-9]*", line.partition("=")[0])
    }
