"""A glimpse of your own in place of the Gaussian grid: hard crops at three scales around one place.

A model takes any operator with the arguments of `read_glimpse`, and any glimpse network that fits
what the operator returns. A hard crop has no gradient with respect to its place, so the policy
learns nothing here, and the error shows it. Run `python examples/own_glimpse.py`: a minute.
"""

import torch
from own_loop import CLASSES, SIDE, canvases
from torch.nn import functional as F

from ramlib import RAMConfig, RecurrentAttentionModel, read_glimpse
from ramlib.networks import DenseGlimpseNetwork

SCALES = (1, 2, 4)


def hard_crops(images, grid, size, *, support=None):
    """Squares of `size * scale` pixels around the grid's centre, averaged down to `size`.

    Returns `(B, 3 C, size, size)`; what lies outside the image is black. `support`, which limits
    what a Gaussian grid reads, has no meaning here.
    """
    border = size * max(SCALES)  # as wide as the widest crop, which then never leaves the image
    padded = F.pad(images, [border] * 4)
    centre = torch.stack(grid.centres(images.shape[-2:])).detach().round().long() + border
    each, crops = torch.arange(len(images), device=images.device)[:, None, None], []
    for scale in SCALES:
        steps = torch.arange(size * scale, device=images.device) - (size * scale - 1) // 2
        columns, rows = centre[..., None] + steps
        crop = padded[each, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
        crops.append(F.avg_pool2d(crop, scale))
    return torch.cat(crops, 1)


def main(updates: int = 300, batch: int = 64) -> dict[str, float]:
    """Train with both glimpses on equal budgets, and return their errors in percent."""
    errors = {}
    for operator, channels in ((read_glimpse, 1), (hard_crops, len(SCALES))):
        torch.manual_seed(0)
        config = RAMConfig(glimpses=3, size=8, hidden=64, supervision="all")
        eye = DenseGlimpseNetwork(channels, config.size, config.hidden)
        model = RecurrentAttentionModel(
            config, (1, SIDE, SIDE), CLASSES, operator=operator, f_glimpse=eye
        )
        adam, generator = torch.optim.Adam(model.parameters(), 2e-3), torch.Generator()
        for _ in range(updates):
            adam.zero_grad()
            model.objective(*canvases(batch, generator)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            adam.step()
        images, labels = canvases(1000, torch.Generator().manual_seed(2))
        errors[operator.__name__] = 100 * (model.predict(images) != labels).float().mean().item()
    print({name: f"error {error:.1f} %" for name, error in errors.items()})
    return errors


if __name__ == "__main__":
    main()
