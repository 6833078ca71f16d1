"""Refuse bad input by name: every public function words its errors through these helpers."""

from __future__ import annotations

import torch
from torch import Tensor


def require(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_batch(where: str, images: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Check that `images` is a non-empty floating-point batch `(B, *image_shape)`.

    No pixel is read, so this costs nothing in a training step.

    Raises:
        TypeError: if `images` is not a floating-point tensor.
        ValueError: if its shape is wrong or it is empty.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"{where}: images must be a torch.Tensor, got {type(images).__name__}")
    if not images.is_floating_point():
        raise TypeError(f"{where}: images must be floating point, got {images.dtype}")
    require(
        tuple(images.shape[1:]) == tuple(image_shape),
        f"{where}: images must have shape (B, {', '.join(map(str, image_shape))}), "
        f"got {tuple(images.shape)}",
    )
    require(images.shape[0] > 0, f"{where}: images holds no image, got shape {tuple(images.shape)}")


def require_images(
    where: str,
    images: Tensor,
    image_shape: tuple[int, int, int],
    value_range: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Check that `images` is a batch as in `require_batch`, with finite pixels in `value_range`.

    Reading the extremes costs one pass over the pixels, so models call this from `predict` and its
    kind, where a caller's own images come in, and not from `forward`, which training calls.

    Raises:
        TypeError: if `images` is not a floating-point tensor.
        ValueError: if its shape is wrong, it is empty, a pixel is not finite or is out of range.
    """
    low, high = value_range
    cure = "call .float() on them" if high == 255 else f"divide 8-bit pixels by {255 / high:g}"
    if isinstance(images, Tensor) and not images.is_floating_point():
        raise TypeError(
            f"{where}: images must be floating point in [{low:g}, {high:g}], got {images.dtype}; "
            f"{cure} first"
        )
    require_batch(where, images, image_shape)
    smallest, largest = (extreme.item() for extreme in torch.aminmax(images.detach()))
    # NaN fails both comparisons and an infinity one, so this also refuses what is not finite.
    require(
        smallest >= low and largest <= high,
        f"{where}: images must be finite and in [{low:g}, {high:g}], "
        f"got values from {smallest:g} to {largest:g}",
    )
