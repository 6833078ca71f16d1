"""Draw the animation of looking, for README and chapter 7, and its still: from what ships."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")

import ramlib
from ramlib.data.cluttered import ClutteredDigits
from ramlib.plots import animate_rollout, save_animation, show_rollouts, use_book_style

FOLDER = Path(__file__).parent.parent / "book" / "_static"


def main() -> None:
    """Write `looking.gif` and `looking-still.png`."""
    use_book_style()
    model = ramlib.load("digit")  # without context, its windows travel
    generator = torch.Generator().manual_seed(7)
    batch = ClutteredDigits("digit").sample(500, split="validation", generator=generator)
    with torch.inference_mode():
        rollout = model(batch.images[:1])
    animation = animate_rollout(batch.images[0], rollout.windows[0], rollout.glimpses[0])
    save_animation(animation, FOLDER / "looking.gif")
    axes = show_rollouts(batch.images[:1], rollout)
    axes[0, 0].figure.savefig(FOLDER / "looking-still.png")


if __name__ == "__main__":
    main()
