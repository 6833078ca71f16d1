"""The glimpse: a grid of Gaussian filters laid on an image, differentiable in where it lies.

Convention, for the whole package:

- x runs right, y runs down; pixel `(0, 0)` is the top-left one and indices start at 0.
- Centres `c_x`, `c_y` are in [-1, 1]; -1 and +1 are the centres of the first and the last pixel.
- Distances `delta_x`, `delta_y` and `sigma` are in pixels.
- Boxes are `(x1, y1, x2, y2)` in pixels; pixel `i` covers `[i, i + 1)`, so an image of width W is
  the box from 0 to W.

Gregor et al. (2015) count filters and pixels from 1. Counted from 0, filter `i` of `N` stands at
`centre + (i - (N - 1) / 2) delta`. Putting 0-based indices into their 1-based formula shifts the
whole grid by one `delta`, the commonest bug among published implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ramlib import _pytree
from ramlib._checks import require

# Beyond this many pixels a filter's place no longer changes what it sees; squares stay in float32.
_FAR = 1e6
# Sums of what lies within this stay finite in float32.
_HUGE = 1e30
# Below this many pixels a filter sees one pixel, or two alike; quotients stay in float32.
_NARROW = 1e-3


@dataclass(frozen=True)
class GlimpseGrid:
    """Where a glimpse looks. Six tensors of one shape: `(B,)` for a look, `(B, T)` for a rollout.

    Args:
        c_x: centre of the grid, right of the image's middle, in [-1, 1].
        c_y: centre of the grid, below the image's middle, in [-1, 1].
        delta_x: distance between neighbouring filters along x, in pixels.
        delta_y: distance between neighbouring filters along y, in pixels.
        sigma: standard deviation of every filter, in pixels.
        gamma: intensity that the glimpse is multiplied by.

    Section III, Semeniuta & Barth (2016): DRAW's grid with two distances in place of one.
    """

    c_x: Float[Tensor, "..."]
    c_y: Float[Tensor, "..."]
    delta_x: Float[Tensor, "..."]
    delta_y: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]
    gamma: Float[Tensor, "..."]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"GlimpseGrid: {name} must be a tensor, got {type(value).__name__}; "
                    "GlimpseGrid.at makes a grid from numbers"
                )
        shapes = {name: tuple(value.shape) for name, value in vars(self).items()}
        first = shapes["c_x"]
        require(
            all(shape == first for shape in shapes.values()),
            f"GlimpseGrid: all parameters must have one shape, got {shapes}",
        )

    @classmethod
    def at(
        cls,
        x: int | float | Tensor,
        y: int | float | Tensor,
        width: int | float | Tensor,
        height: int | float | Tensor,
        *,
        size: int,
        image_size: tuple[int, int],
        sharpness: float = 0.5,
    ) -> GlimpseGrid:
        """The grid whose window is `width` x `height` pixels around pixel `(x, y)`.

        Args:
            x: as `centres` gives it: 0 is the middle of the first pixel; a number or `(B,)`.
            y: the same, downwards.
            width: of the window, in pixels.
            height: of the window, in pixels.
            size: N, filters along each axis.
            image_size: `(H, W)` of the image.
            sharpness: sigma, as a multiple of the distance between filters.
        """
        given = (x, y, width, height)
        like = next(
            (v for v in given if torch.is_tensor(v) and v.is_floating_point()), torch.ones(1)
        )
        x, y, width, height = torch.broadcast_tensors(
            *(torch.atleast_1d(torch.as_tensor(v).to(like)) for v in given)
        )
        rows, columns = image_size
        delta_x, delta_y = width / size, height / size
        return cls(
            2 * x / max(columns - 1, 1) - 1,
            2 * y / max(rows - 1, 1) - 1,
            delta_x,
            delta_y,
            sharpness * (delta_x * delta_y).sqrt(),
            torch.ones_like(x),
        )

    @property
    def shape(self) -> torch.Size:
        """The shape that all six parameters share."""
        return self.c_x.shape

    def _values(self) -> tuple[Tensor, ...]:
        """The six parameters, in the order above."""
        return self.c_x, self.c_y, self.delta_x, self.delta_y, self.sigma, self.gamma

    def map(self, function: Callable[[Tensor], Tensor]) -> GlimpseGrid:
        """Apply `function` to each parameter, for example `grid.map(torch.exp)`."""
        return GlimpseGrid(*(function(value) for value in self._values()))

    def to(self, *where: torch.device | torch.dtype | str) -> GlimpseGrid:
        """The grid on a device, or in a dtype, as `Tensor.to` names them."""
        return self.map(lambda parameter: parameter.to(*where))

    def detach(self) -> GlimpseGrid:
        """The grid, without its history."""
        return self.map(torch.detach)

    def __getitem__(self, index) -> GlimpseGrid:
        """Index all parameters alike: `grids[:, 0]` is every image's first look."""
        return self.map(lambda parameter: parameter[index])

    @staticmethod
    def stack(grids: list[GlimpseGrid], dim: int = 1) -> GlimpseGrid:
        """Join T looks of shape `(B,)` into one grid of shape `(B, T)`."""
        alike = zip(*(grid._values() for grid in grids), strict=True)
        return GlimpseGrid(*(torch.stack(values, dim) for values in alike))

    @staticmethod
    def cat(grids: list[GlimpseGrid], dim: int = 1) -> GlimpseGrid:
        """Join rollouts of shape `(B, T)` along their looks."""
        alike = zip(*(grid._values() for grid in grids), strict=True)
        return GlimpseGrid(*(torch.cat(values, dim) for values in alike))

    def centres(self, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Centre in pixels, `(x, y)`, on an image of `image_size = (H, W)`.

        Eqs. 22-23, Gregor et al. (2015), but for the ends: theirs lie a pixel outside the image.
        """
        height, width = image_size
        return (width - 1) / 2 * (self.c_x + 1), (height - 1) / 2 * (self.c_y + 1)

    def boxes(self, size: int, image_size: tuple[int, int]) -> Float[Tensor, "*B 4"]:
        """The window: the box that `size` x `size` cells of `delta_x` x `delta_y` cover.

        The grid that copies an image (`size` = H = W, both deltas 1) has the image as its window.
        The box is not cut at the image's border.
        """
        x, y = self.centres(image_size)
        half_width, half_height = size / 2 * self.delta_x, size / 2 * self.delta_y
        left, right = x - half_width + 0.5, x + half_width + 0.5
        top, bottom = y - half_height + 0.5, y + half_height + 0.5
        return torch.stack([left, top, right, bottom], -1)


_pytree.register(GlimpseGrid)


def _in_float32(values: Tensor) -> Tensor:
    """Half types are computed in float32, since squared distances overflow them."""
    if values.dtype not in (torch.float16, torch.bfloat16):
        return values
    limit = torch.finfo(values.dtype).max
    widened = values.float()
    if widened.requires_grad:
        # A narrow filter half-way between two pixels has a slope beyond what float16 can hold.
        widened.register_hook(lambda slope: slope.clamp(-limit, limit))
    return widened


def gaussian_filterbank(
    centre: Float[Tensor, " B"],
    delta: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    *,
    filters: int,
    pixels: int,
    first: Int64[Tensor, " B"] | None = None,
) -> Float[Tensor, "B filters pixels"]:
    """Weights `F[i, a]` with which filter `i` sees pixel `a` along one axis; each row sums to one.

    The weights are a softmax over pixels of `-(a - mu_i)^2 / (2 sigma^2)`. That is the Gaussian
    divided by its sum over the image, and it stays finite, value and gradient, where that quotient
    is 0/0: a filter that is narrow, or far off the image, sees the nearest pixel.

    Args:
        centre: the grid's centre in pixels.
        delta: distance between neighbouring filters in pixels; 0 lays them on one another.
        sigma: standard deviation in pixels; below 1e-3 it counts as 1e-3.
        filters: number of filters, N.
        pixels: number of pixels along the axis.
        first: index of the first pixel of each image's row; 0 when left out.

    Returns:
        Weights in the dtype of `centre`; half types are computed in float32.

    Raises:
        ValueError: if the shapes do not match, or `filters` or `pixels` is below 1.

    Eqs. 19-20 and 25-26, Gregor et al. (2015), counted from 0.
    """
    require(filters >= 1, f"gaussian_filterbank: filters must be at least 1, got {filters}")
    require(pixels >= 1, f"gaussian_filterbank: pixels must be at least 1, got {pixels}")
    shapes = [tuple(parameter.shape) for parameter in (centre, delta, sigma)]
    require(
        centre.ndim == 1 and shapes[0] == shapes[1] == shapes[2],
        f"gaussian_filterbank: centre, delta and sigma must have one shape (B,), "
        f"got {', '.join(map(str, shapes))}",
    )
    dtype = centre.dtype
    centre, delta, sigma = map(_in_float32, (centre, delta, sigma))
    centre, delta = centre.clamp(-_HUGE, _HUGE), delta.clamp(-_HUGE, _HUGE)
    sigma = sigma.clamp(min=_NARROW)
    offsets = torch.arange(filters, device=centre.device, dtype=centre.dtype) - (filters - 1) / 2
    mu = centre[:, None] + offsets * delta[:, None]
    if first is not None:
        mu = mu - first[:, None]
    a = torch.arange(pixels, device=centre.device, dtype=centre.dtype)
    z = (a - mu.clamp(-_FAR, _FAR)[..., None]) / sigma[:, None, None]
    return torch.softmax(z.square() * -0.5, -1).to(dtype)


def _window(
    images: Tensor, corner_x: Tensor, corner_y: Tensor, height: int, width: int
) -> Float[Tensor, "B C height width"]:
    """Cut one `height` x `width` window out of each image; gradients flow to the pixels."""
    batch, channels, _, stride = images.shape
    steps_y = torch.arange(height, device=images.device)
    steps_x = torch.arange(width, device=images.device)
    rows, columns = corner_y[:, None] + steps_y, corner_x[:, None] + steps_x
    index = (rows[:, :, None] * stride + columns[:, None, :]).view(batch, 1, -1)
    pixels = images.reshape(batch, channels, -1).gather(2, index.expand(-1, channels, -1))
    return pixels.view(batch, channels, height, width)


def read_glimpse(
    images: Float[Tensor, "B C H W"],
    grid: GlimpseGrid,
    size: int,
    *,
    support: int | None = None,
) -> Float[Tensor, "B C size size"]:
    """Look at each image through its grid: `gamma * F_y I F_x^T`, channel by channel.

    Args:
        images: any range; any number of channels and any size.
        grid: parameters of shape `(B,)`.
        size: N, the side of the glimpse.
        support: side in pixels of the square around the grid's centre that is filtered; pixels
            outside it are not read. With `support` the cost no longer depends on the image, and
            the result equals the full read to within the weight that the filters have outside
            the square: see `support_of`. None reads the whole image, and so does a square of more
            than half its area.

    Raises:
        TypeError: if `images` is not floating point.
        ValueError: if the shapes do not fit, `size` is below 1 or `support` is below 1.

    Eq. 2, Semeniuta & Barth (2016); eq. 27, Gregor et al. (2015).
    """
    require(
        images.ndim == 4 and images.shape[0] > 0,
        f"read_glimpse: images must have shape (B, C, H, W) with B >= 1, got {tuple(images.shape)}",
    )
    if not images.is_floating_point():
        raise TypeError(f"read_glimpse: images must be floating point, got {images.dtype}")
    require(
        tuple(grid.shape) == (images.shape[0],),
        f"read_glimpse: grid must have shape ({images.shape[0]},) for images of shape "
        f"{tuple(images.shape)}, got {tuple(grid.shape)}",
    )
    require(size >= 1, f"read_glimpse: size must be at least 1, got {size}")
    require(
        support is None or support >= 1, f"read_glimpse: support must be at least 1, got {support}"
    )
    height, width = images.shape[-2:]
    grid = grid.map(_in_float32)
    x, y = grid.centres((height, width))
    rows, columns = height, width
    first_x = first_y = None
    # Cutting costs about as much as filtering what is cut, so a large window is read in place.
    if support is not None and 2 * support**2 <= height * width:
        rows, columns = min(support, height), min(support, width)

        def corner(centre: Tensor, span: int, whole: int) -> Tensor:
            left = (centre.detach() - (span - 1) / 2).round()
            return left.clamp(0, whole - span).long()

        first_x, first_y = corner(x, columns, width), corner(y, rows, height)
        images = _window(images, first_x, first_y, rows, columns)
    f_x = gaussian_filterbank(
        x, grid.delta_x, grid.sigma, filters=size, pixels=columns, first=first_x
    )
    f_y = gaussian_filterbank(y, grid.delta_y, grid.sigma, filters=size, pixels=rows, first=first_y)
    f_x, f_y = f_x.to(images.dtype), f_y.to(images.dtype)
    seen = f_y[:, None] @ images @ f_x[:, None].mT
    return grid.gamma.to(images.dtype)[:, None, None, None] * seen


def support_of(size: int, delta: float, sigma: float, *, reach: float = 4.0) -> int:
    """Side in pixels of the square that holds every filter of a grid to `reach` sigmas.

    At the default of 4 sigmas, less than 1e-4 of a filter's weight lies outside.

    Args:
        size: N, filters along an axis.
        delta: the largest distance between neighbouring filters, in pixels.
        sigma: the largest standard deviation, in pixels.
        reach: sigmas kept beyond the outermost filter.
    """
    # Half a pixel on each side, since the square's corner is rounded to a pixel.
    return int((size - 1) * delta + 2 * reach * sigma) + 2
