"""The model as one would first write it: correct, and the yardstick for what ramlib saves.

It reads the whole image at every glimpse, joins the context to the input of a `GRUCell` at every
glimpse, and classifies inside the loop. A test holds its logits against ramlib's.
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Rollout
from ramlib.model import RecurrentAttentionModel
from ramlib.recurrence import GatedRecurrentUnit


def filterbank(centre: Tensor, delta: Tensor, sigma: Tensor, filters: int, pixels: int) -> Tensor:
    """Weights of every pixel of the image's axis, for every filter: `(B, filters, pixels)`."""
    i = torch.arange(filters, device=centre.device)
    a = torch.arange(pixels, device=centre.device)
    mu = centre[:, None] + (i - (filters - 1) / 2) * delta[:, None]
    distance = a - mu[:, :, None]
    return torch.softmax(-(distance**2) / (2 * sigma[:, None, None] ** 2), -1)


def read(images: Float[Tensor, "B C H W"], grid: GlimpseGrid, size: int) -> Tensor:
    """The glimpse, from all pixels of the image."""
    height, width = images.shape[-2:]
    x, y = grid.centres((height, width))
    f_x = filterbank(x, grid.delta_x, grid.sigma, size, width)
    f_y = filterbank(y, grid.delta_y, grid.sigma, size, height)
    return grid.gamma[:, None, None, None] * (f_y[:, None] @ images @ f_x[:, None].mT)


def cell(unit: GatedRecurrentUnit, *joined: nn.Linear) -> nn.GRUCell:
    """A cell of torch's own with the weights of `unit`; its input ends with those of `joined`."""
    inputs = torch.cat([layer.weight for layer in (unit.from_input, *joined)], 1)
    twin = nn.GRUCell(inputs.shape[1], unit.hidden)
    twin.load_state_dict(
        {
            "weight_ih": inputs,
            "bias_ih": unit.from_input.bias,
            "weight_hh": unit.from_state.weight,
            "bias_hh": unit.from_state.bias,
        }
    )
    return twin.to(inputs)


class PlainRecurrentAttentionModel(nn.Module):
    """Computes what `model`, a top-down model with context, computes, from a copy of its weights.

    Args:
        model: the model to imitate.
    """

    def __init__(self, model: RecurrentAttentionModel) -> None:
        super().__init__()
        self.config = model.config
        self.f_context, self.f_glimpse = deepcopy(model.f_context), deepcopy(model.f_glimpse)
        self.f_ext, self.f_class = deepcopy(model.f_ext), deepcopy(model.f_class)
        self.layer1 = cell(model.f_rec.layer1)
        self.layer2 = cell(model.f_rec.layer2, model.f_rec.from_context)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Rollout:
        """Eqs. 1-4, line by line."""
        context = self.f_context(images)
        h1 = h2 = images.new_zeros(len(images), self.config.hidden)
        grid, steps = None, []
        for _ in range(self.config.glimpses):
            h2 = self.layer2(torch.cat([h1, context], 1), h2)
            grid, shift = self.f_ext(h2, grid)
            g = read(images, grid, self.config.size)
            h1 = self.layer1(self.f_glimpse(g), h1)
            steps.append((self.f_class(h1), grid, g, shift))
        logits, grids, glimpses, shifts = zip(*steps, strict=True)
        return Rollout(
            torch.stack(logits, 1),
            grids=GlimpseGrid.stack(list(grids)),
            glimpses=torch.stack(glimpses, 1),
            shifts=torch.stack(shifts, 1),
        )
