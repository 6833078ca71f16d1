"""Bad input is refused, and the message says where, what and why."""

import re

import numpy as np
import pytest
import torch

from ramlib._checks import require, require_batch, require_images


def refused(images, error, message, **changes):
    with pytest.raises(error, match=re.escape(message)):
        require_images("look", images, (1, 4, 5), **changes)


class TestRequire:
    def test_passes_what_holds(self):
        require(True, "never seen")

    def test_raises_the_message_as_it_stands(self):
        with pytest.raises(ValueError, match=r"^look: size must be at least 1, got 0$"):
            require(False, "look: size must be at least 1, got 0")


class TestRequireBatch:
    def test_reads_no_pixel(self):
        """Training calls it at every step, so values are not its business, nor is the device."""
        require_batch("look", torch.full((2, 1, 4, 5), float("nan")), (1, 4, 5))
        require_batch("look", torch.empty(2, 1, 4, 5, device="meta"), (1, 4, 5))

    def test_refuses_integers(self):
        with pytest.raises(TypeError, match=r"look: images must be floating .* got torch\.int64"):
            require_batch("look", torch.zeros(1, 1, 4, 5, dtype=torch.int64), (1, 4, 5))


class TestRequireImages:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_accepts_every_floating_type(self, dtype):
        require_images("look", torch.rand(2, 1, 4, 5).to(dtype), (1, 4, 5))

    def test_accepts_both_ends_of_the_range(self):
        images = torch.zeros(2, 1, 4, 5)
        images[1] = 1
        require_images("look", images, (1, 4, 5))

    @pytest.mark.usefixtures("as_installed")
    def test_refuses_what_is_not_a_tensor(self):
        refused(
            np.zeros((1, 1, 4, 5)), TypeError, "look: images must be a torch.Tensor, got ndarray"
        )

    def test_refuses_integers_and_says_what_to_divide_by(self):
        message = (
            "look: images must be floating point in [0, 1], got torch.uint8; "
            "divide 8-bit pixels by 255 first"
        )
        refused(torch.zeros(1, 1, 4, 5, dtype=torch.uint8), TypeError, message)

    @pytest.mark.parametrize(
        "shape", [(1, 4, 5), (4, 5), (1, 3, 4, 5), (1, 1, 5, 4), (1, 1, 1, 4, 5)]
    )
    def test_refuses_another_shape_and_names_both(self, shape):
        message = f"look: images must have shape (B, 1, 4, 5), got {shape}"
        refused(torch.zeros(shape), ValueError, message)

    def test_refuses_an_empty_batch(self):
        message = "look: images holds no image, got shape (0, 1, 4, 5)"
        refused(torch.zeros(0, 1, 4, 5), ValueError, message)

    @pytest.mark.parametrize(
        ("pixel", "shown"), [(255.0, "0 to 255"), (-0.5, "-0.5 to 0"), (1.001, "0 to 1.001")]
    )
    def test_refuses_one_pixel_out_of_range(self, pixel, shown):
        images = torch.zeros(3, 1, 4, 5)
        images[2, 0, 3, 4] = pixel
        message = f"look: images must be finite and in [0, 1], got values from {shown}"
        refused(images, ValueError, message)

    @pytest.mark.parametrize("pixel", [float("nan"), float("inf"), -float("inf")])
    def test_refuses_one_pixel_that_is_not_finite(self, pixel):
        images = torch.zeros(3, 1, 4, 5)
        images[1, 0, 2, 2] = pixel
        refused(images, ValueError, "look: images must be finite and in [0, 1]")

    def test_holds_to_the_range_it_is_given(self):
        grey = torch.full((1, 1, 4, 5), 200.0)
        require_images("look", grey, (1, 4, 5), (0.0, 255.0))
        refused(grey, ValueError, "in [0, 128]", value_range=(0.0, 128.0))
