"""Where to compute: the fastest device on which the glimpse really runs."""

from __future__ import annotations

import torch

from ramlib.glimpse import GlimpseGrid, read_glimpse


def best_device() -> torch.device:
    """CUDA if there is a GPU, then Apple's MPS, then the CPU.

    A GPU that PyTorch sees and cannot use, because it is too old or lacks an operation, is passed
    over: a glimpse and its gradient are tried on it first.
    """
    for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if backend.is_available() and _can_look(name):
            return torch.device(name)
    return torch.device("cpu")


def _can_look(name: str) -> bool:
    """Whether random numbers, a glimpse and its gradient come out finite on a device."""
    try:
        generator = torch.Generator(name).manual_seed(0)
        images = torch.rand(2, 1, 8, 8, generator=generator, device=name)
        numbers = torch.full((6, 2), 0.5, device=name, requires_grad=True)
        read_glimpse(images, GlimpseGrid(*numbers), 4).square().sum().backward()
        return bool(numbers.grad.isfinite().all())
    except (RuntimeError, NotImplementedError, TypeError, AssertionError):
        return False
