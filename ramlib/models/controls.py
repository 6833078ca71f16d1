"""Controls: our model with a policy that knows nothing of the image.

What looking is worth shows only beside looks that cost the same and are not chosen. The windows of
`BlindModel` follow a path that was settled beforehand; all else is as in the model that it
controls, and learns as long. On canvases whose digits stand in the middle
(`ClutteredDigits(centred=True)`) the path that stays there is that of an oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib._checks import require
from ramlib.attention import SIGMA_FLOOR
from ramlib.glimpse import GlimpseGrid
from ramlib.model import RAMConfig, RecurrentAttentionModel

PATHS = ("centre", "tiles", "random")


@dataclass(frozen=True)
class BlindConfig(RAMConfig):
    """A `RAMConfig` and the path of its windows, each of side `window.start`.

    Args:
        path: all looks at the `centre`; side by side in four `tiles`, from the upper left to the
            lower right; or at `random` places, new ones for every image while training, and for
            each noisy pass.

    Raises:
        ValueError: if `path` is none of these, or there are tiles but not four looks.
    """

    path: Literal["centre", "tiles", "random"] = "centre"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.path in PATHS,
            f"BlindConfig: path must be one of {', '.join(PATHS)}, got {self.path!r}",
        )
        require(
            self.path != "tiles" or self.glimpses == 4,
            f"BlindConfig: tiles need 4 glimpses, got {self.glimpses}",
        )

    def build(self, image_shape: tuple[int, int, int], classes: int) -> BlindModel:
        """The model with fresh weights."""
        return BlindModel(self, image_shape, classes)


class BlindPolicy(nn.Module):
    """Takes the place of an `AttentionPolicy`, and does not read the state that it is given.

    Args:
        config: the path, and the side of the windows.
        image_size: `(H, W)`.
    """

    support = None

    def __init__(self, config: BlindConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.random, self.glimpses = config.path == "random", config.glimpses
        self.delta = config.window.start * (max(image_size) - 1) / (config.size - 1)
        places = torch.zeros(config.glimpses, 2)
        if config.path == "tiles":
            places = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
        elif config.path == "random":
            places = 2 * torch.rand(config.glimpses, 2) - 1
        self.register_buffer("places", places)
        self.t = 0

    def forward(
        self, h2: Float[Tensor, "B F"], previous: GlimpseGrid | None = None, *, noisy: bool = False
    ) -> tuple[GlimpseGrid, Float[Tensor, "B 2"]]:
        """The next grid of the path, and by how much its centre moved; see `AttentionPolicy`."""
        self.t = 0 if previous is None else self.t + 1
        place = self.places[self.t].expand(len(h2), 2)
        if noisy and self.random:
            place = 2 * torch.rand_like(place) - 1
        c_x, c_y = place.unbind(-1)
        delta = torch.full_like(c_x, self.delta)
        grid = GlimpseGrid(c_x, c_y, delta, delta, delta / 2 + SIGMA_FLOOR, torch.ones_like(c_x))
        last = 0 if previous is None else torch.stack([previous.c_x, previous.c_y], -1)
        return grid, place - last


class BlindModel(RecurrentAttentionModel):
    """Looks T times where it was told to beforehand, then names the class.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.
    """

    def __init__(
        self, config: BlindConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(config, image_shape, classes)
        self.f_ext = BlindPolicy(config, tuple(self.seen_shape[1:]))

    @property
    def stochastic(self) -> bool:
        """Whether the places are drawn."""
        return self.config.path == "random"
