"""Everything stays on the device that it is asked to use, shown without one.

Torch's fake tensors have a shape and a device, and no values. An operation that mixes devices
fails on them, and so does whatever asks for a value, which on a real device would make it wait.
`pytest -m gpu` and `make gpu` make the same checks on a real one.
"""

from contextlib import nullcontext

import device_checks
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ramlib.data import mnist
from ramlib.experiments import weights


def moved(module, function, recurse=True):
    """`Module._apply`, which cannot move what is fake."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(function(value.detach()), value.requires_grad)
        for name, value in part._buffers.items():
            part._buffers[name] = function(value)
    return module


class FakeGenerator(torch.Generator):
    """Stands for a generator on the device that is not there."""

    device = torch.device("cuda", 0)


class FakeDevice(device_checks.Device):
    """A GPU that is not there."""

    # Torch's backward pass wants a GPU that is really there. It is content with `meta`, which has
    # no values either.
    slopes = "meta"
    real = False

    def __init__(self, monkeypatch):
        self.patch = monkeypatch
        monkeypatch.setattr(nn.Module, "_apply", moved)
        monkeypatch.setattr(mnist, "load", mnist.load.__wrapped__)  # nothing fake is to be kept
        # `meta` knows no mixed precision.
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())

    def generator(self):
        return FakeGenerator().manual_seed(0)

    def watch(self):
        """Fake tensors have no values to ask for."""

    def invent_values(self):
        for ask, value in {"__int__": 1, "__bool__": True, "item": 0.0}.items():
            self.patch.setattr(torch.Tensor, ask, lambda _, value=value: value)

    def without_files(self):
        self.patch.setattr(weights, "load_weights", lambda model, path: None)
        self.patch.setattr(nn.Module, "load_state_dict", lambda module, state: None)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "fake":
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield FakeDevice(monkeypatch)
    elif not torch.cuda.is_available():
        pytest.skip("torch finds no GPU on this machine")
    else:
        yield device_checks.Device()
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("check", device_checks.CHECKS)
def test_on_the_device(device, check):
    device_checks.CHECKS[check](device)


# ---- the checks themselves ----


def test_what_mixes_devices_is_found(device):
    here, there = torch.rand(3), torch.rand(3, device="cuda")
    with pytest.raises(RuntimeError, match="device"):
        here + there


def test_what_asks_for_a_value_is_found(device):
    there = torch.rand(3, device="cuda")
    device.watch()
    with pytest.raises(Exception, match=r"_local_scalar_dense|synchroniz"):
        there.sum().item()


def test_what_stays_behind_is_found(device):
    with pytest.raises(AssertionError, match="cpu"):
        device_checks.assert_on("cuda", {"here": torch.rand(3)})
