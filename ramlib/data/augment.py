"""Digits as other hands might have written them: rotated, scaled, sheared and bent by chance.

Fifty thousand digits are soon known by heart, wherever on a canvas they stand. So a training may
change each digit before it is pasted, a little and differently every time. What is measured on is
never changed.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Half-widths of the uniform changes at strength 1.
ROTATION = math.radians(12)
SHEAR = 0.2  # pixels to the side for each pixel down
SCALE = 0.12  # of each side by itself
SHIFT = 0.08  # of half the side
ELASTIC = 0.05  # of the side, at each knot of a net over the image
KNOTS = 4  # along each side


def warp(
    images: Float[Tensor, "B C H W"],
    where: Float[Tensor, "B 2 3"],
    *,
    elastic: Float[Tensor, "B 2 K K"] | None = None,
    padding: Literal["zeros", "border"] = "zeros",
) -> Float[Tensor, "B C H W"]:
    """Draw each image anew: every pixel is read, between four neighbours, from another place.

    Args:
        images: of any scale; the result keeps it.
        where: affine maps `A, t` from a new place to the old one, `A (x, y) + t`, in coordinates
            that go from -1 to 1, edge to edge.
        elastic: what a net of knots adds to these places, x before y; smooth between the knots,
            which reach from corner to corner.
        padding: what lies outside an image, black or a repetition of its edge.
    """
    height, width = images.shape[-2:]
    places = F.affine_grid(where, list(images.shape), align_corners=False)
    if elastic is not None:
        net = F.interpolate(elastic, (height, width), mode="bicubic", align_corners=True)
        places = places + net.movedim(1, -1)
    return F.grid_sample(images, places, padding_mode=padding, align_corners=False)


def affine_maps(noise: Float[Tensor, "B 6"], strength: float = 1.0) -> Float[Tensor, "B 2 3"]:
    """The affine part: scale each axis, shear, rotate about the middle, then shift.

    Args:
        noise: in [-1, 1]: of the rotation, the shear, the two scales and the two shifts.
        strength: factor on all of them.
    """
    sizes = noise.new_tensor([ROTATION, SHEAR, SCALE, SCALE, SHIFT, SHIFT])
    rotation, shear, *rest = (strength * sizes * noise).unbind(-1)
    scale_x, scale_y, x, y = 1 + rest[0], 1 + rest[1], rest[2], rest[3]
    cos, sin = rotation.cos(), rotation.sin()
    # R(rotation) @ [[1, shear], [0, 1]] @ diag(scale_x, scale_y)
    rows = [
        torch.stack([cos * scale_x, (cos * shear - sin) * scale_y, x], -1),
        torch.stack([sin * scale_x, (sin * shear + cos) * scale_y, y], -1),
    ]
    return torch.stack(rows, 1)


def distort(
    images: Float[Tensor, "B C H W"], generator: torch.Generator, *, strength: float = 1.0
) -> Float[Tensor, "B C H W"]:
    """Change each image by itself, on the generator's device; the same seed, the same changes.

    Args:
        images: digits on black.
        generator: where chance comes from, and from nowhere else.
        strength: factor on all changes; at 0 nothing changes.
    """
    count = len(images)

    def noise(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator, device=generator.device) - 1

    where = affine_maps(noise(count, 6), strength)
    # In the coordinates of `warp` a side is 2 long.
    elastic = 2 * ELASTIC * strength * noise(count, 2, KNOTS, KNOTS)
    return warp(images, where, elastic=elastic)
