"""The example that students read first learns to find and to name."""

import own_loop
import torch


def test_a_canvas_holds_its_shape_somewhere():
    images, labels = own_loop.canvases(50, torch.Generator().manual_seed(0))
    assert images.shape == (50, 1, 40, 40)
    assert 0 <= images.min() <= images.max() <= 1
    for image, label in zip(images[:, 0], labels, strict=True):
        windows = image.unfold(0, 9, 1).unfold(1, 9, 1)
        fits = [(windows * shape).sum((2, 3)).max() / shape.sum() for shape in own_loop.shapes()]
        # Where the shape stands, every one of its pixels is bright.
        assert fits[label] > 0.7


def test_learns(capsys):
    assert own_loop.main(updates=250) < 25
    assert "guessing: 75 %" in capsys.readouterr().out
