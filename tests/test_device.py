"""The device: the first that is there and works."""

import pytest
import torch

import ramlib
from ramlib import device


@pytest.mark.parametrize(
    ("there", "broken", "expected"),
    [
        ("", "", "cpu"),
        ("cuda", "", "cuda"),
        ("mps", "", "mps"),
        ("cuda mps", "", "cuda"),
        ("cuda mps", "cuda", "mps"),
        ("mps", "mps", "cpu"),
        ("cuda", "cuda", "cpu"),
    ],
)
def test_takes_the_first_that_is_there_and_works(monkeypatch, there, broken, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    monkeypatch.setattr(device, "_can_look", lambda name: name not in broken)
    assert ramlib.best_device() == torch.device(expected)


def test_what_it_finds_here_computes():
    found = ramlib.best_device()
    assert torch.ones(2, device=found).sum().item() == 2


@pytest.mark.parametrize(("name", "works"), [("cpu", True), ("xla", False), ("meta", False)])
def test_tries_before_it_trusts(name, works):
    assert device._can_look(name) is works
