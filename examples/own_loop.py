"""Your own images, your own training loop: `ramlib` brings the model, you bring the rest.

Four shapes stand somewhere on a noisy canvas; the model learns to find and to name them.
Run it with `python examples/own_loop.py`. It takes a minute on one CPU core.
"""

import torch

from ramlib import RAMConfig, RecurrentAttentionModel

SIDE, SHAPE, CLASSES = 40, 9, 4


def shapes() -> torch.Tensor:
    """A plus, a cross, a frame and a filled square: `(4, 9, 9)`."""
    line = torch.eye(SHAPE)
    plus, frame = torch.zeros(2, SHAPE, SHAPE)
    plus[SHAPE // 2] = plus[:, SHAPE // 2] = 1
    frame[[0, -1]] = frame[:, [0, -1]] = 1
    return torch.stack([plus, (line + line.flip(1)).clamp(max=1), frame, torch.ones(SHAPE, SHAPE)])


def canvases(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(B, 1, 40, 40)` in [0, 1] and labels `(B,)`, without a loop over images."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    x, y = torch.randint(SIDE - SHAPE + 1, (2, count, 1), generator=generator)
    steps = torch.arange(SHAPE)
    rows, columns = (y + steps)[:, :, None], (x + steps)[:, None, :]
    images = 0.3 * torch.rand(count, SIDE, SIDE, generator=generator)
    images[torch.arange(count)[:, None, None], rows, columns] += 0.7 * shapes()[labels]
    return images[:, None], labels


def main(updates: int = 400, batch: int = 64) -> float:
    """Train, and return the error in percent on canvases that were not trained on."""
    torch.manual_seed(0)
    config = RAMConfig(glimpses=3, size=8, hidden=64, supervision="all")
    model = RecurrentAttentionModel(config, (1, SIDE, SIDE), CLASSES)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(updates):
        loss = model.objective(*canvases(batch, generator))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adam.step()
        if step % 100 == 0:
            print(f"update {step:4}  loss {loss.item():.2f}")
    images, labels = canvases(1000, torch.Generator().manual_seed(2))
    error = 100 * (model.predict(images) != labels).float().mean().item()
    print(f"error {error:.1f} % (guessing: {100 - 100 / CLASSES:.0f} %)")
    return error


if __name__ == "__main__":
    main()
