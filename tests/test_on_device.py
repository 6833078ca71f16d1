"""Everything stays on the device that it is asked to use, shown without one.

Torch's fake tensors have a shape and a device, and no values. An operation that mixes devices
fails on them, and so does whatever asks for a value, which on a real device would make it wait.
`pytest -m gpu` runs the same tests on a real one.
"""

from contextlib import nullcontext

import kinds
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree

from ramlib.data import mnist
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments import weights
from ramlib.experiments.measure import measure

each_kind = pytest.mark.parametrize("kind", kinds.KINDS)
# Readers group a batch by the lengths of its numbers, and so must know them.
LEARNS_BLINDLY = [
    kind for kind in kinds.KINDS if kind not in kinds.UNTRAINED and not kind.startswith("reader")
]


class FakeGenerator(torch.Generator):
    """Stands for a generator on the device that is not there."""

    device = torch.device("cuda", 0)


def moved(module, function, recurse=True):
    """`Module._apply`, which cannot move what is fake."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(function(value.detach()), value.requires_grad)
        for name, value in part._buffers.items():
            part._buffers[name] = function(value)
    return module


class Device:
    """A device, real or fake."""

    def __init__(self, monkeypatch, real):
        self.real, self.patch = real, monkeypatch
        # Where slopes are taken: torch's backward pass wants a CUDA device that is really there,
        # and is content with `meta`, which has no values either.
        self.slopes = "cuda" if real else "meta"

    def generator(self):
        made = torch.Generator("cuda") if self.real else FakeGenerator()
        return made.manual_seed(0)

    def watch(self):
        """From here on, nothing may ask for a value."""
        if self.real:
            torch.cuda.set_sync_debug_mode("error")

    def invent_values(self):
        """From here on, who asks for a value of a fake tensor gets one that is made up."""
        if not self.real:
            for ask, value in {"__int__": 1, "__bool__": True, "item": 0.0}.items():
                self.patch.setattr(torch.Tensor, ask, lambda _, value=value: value)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "real":
        if not torch.cuda.is_available():
            pytest.skip("torch finds no GPU on this machine")
        yield Device(monkeypatch, True)
        torch.cuda.set_sync_debug_mode("default")
        return
    monkeypatch.setattr(nn.Module, "_apply", moved)
    # `meta` knows no mixed precision.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(mnist, "load", mnist.load.__wrapped__)  # what is fake is not to be kept
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield Device(monkeypatch, False)


def assert_on(where, values):
    """Every tensor is on the device."""
    leaves = [leaf for leaf in _pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    assert leaves
    assert {leaf.device.type for leaf in leaves} == {where}


@pytest.mark.parametrize(
    ("target", "overlapping"), [("digit", 0.0), ("pair", 0.0), ("pair", 0.2), ("sum", 0.2)]
)
def test_canvases_are_made_where_their_generator_is(device, target, overlapping):
    task = ClutteredDigits(target, overlapping=overlapping)
    task.sample(2, generator=device.generator())  # loads the digits
    device.watch()
    assert_on("cuda", tuple(task.sample(4, generator=device.generator())))


@pytest.mark.parametrize("kind", LEARNS_BLINDLY)
def test_a_training_step_asks_for_no_value(device, kind):
    for where in ("cuda", device.slopes):
        model = kinds.build(kind).train().to(where)
        batch = kinds.images(model, 4).to(where), kinds.labels(model, 4).to(where)
        optimiser = torch.optim.Adam(model.parameters(), fused=where == "cuda")

        def step(where=where, model=model, batch=batch, optimiser=optimiser):
            optimiser.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                loss = model.objective(*batch)
            if where == device.slopes:
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                assert_on(where, [p.grad for p in model.parameters()])
            if where == "cuda":
                for value in model.parameters():
                    value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                optimiser.step()
            return loss

        step()  # makes the state of Adam
        device.watch()
        assert_on(where, step())


@pytest.mark.parametrize("kind", ["reader", "reader from right to left"])
def test_a_reader_learns_there(device, kind):
    model = kinds.build(kind).train().to("cuda")
    images, labels = kinds.images(model, 4).to("cuda"), kinds.labels(model, 4).to("cuda")
    assert_on("cuda", model.loss(model(images), labels))
    if device.real:  # reads each number to its end, and so asks how long they are
        model.objective(images, labels).backward()
        assert_on("cuda", [value.grad for value in model.parameters()])


@each_kind
@pytest.mark.parametrize("noisy", [False, True])
def test_a_rollout_is_where_its_images_are(device, kind, noisy):
    model = kinds.build(kind).to("cuda")
    device.invent_values()
    assert_on("cuda", model(kinds.images(model, 4).to("cuda"), noisy=noisy))


@each_kind
@pytest.mark.parametrize("passes", [0, 2])
def test_a_model_answers_there_to_images_from_anywhere(device, kind, passes):
    model = kinds.build(kind).to("cuda")
    device.invent_values()
    assert_on("cuda", model.predict(kinds.images(model, 4), passes=passes))


@pytest.mark.parametrize("target", ["digit", "pair"])
def test_a_model_is_measured_where_it_is(device, target):
    task = ClutteredDigits(target, distractors=1, size=32)
    config, _ = kinds.KINDS["context and convolutions"]
    model = config.build(task.image_shape, task.classes).eval().to("cuda")
    device.invent_values()
    found = measure(task, model, "validation", 6, passes=2)
    assert found["error"].n > 0


@pytest.mark.parametrize("name", ["digit", "pairs-ior-closer", "house-numbers-twin-both"])
def test_what_ships_is_loaded_to_it(device, name):
    if not device.real:  # a file has values
        device.patch.setattr(weights, "load_weights", lambda model, path: None)
        device.patch.setattr(nn.Module, "load_state_dict", lambda module, state: None)
    model = weights.load(name, device="cuda")
    assert_on("cuda", [*model.parameters(), *model.buffers()])


def test_what_mixes_devices_is_found(device):
    here, there = torch.rand(3), torch.rand(3, device="cuda")
    with pytest.raises(RuntimeError, match="device"):
        here + there


def test_what_asks_for_a_value_is_found(device):
    there = torch.rand(3, device="cuda")
    device.watch()
    with pytest.raises(Exception, match=r"_local_scalar_dense|synchroniz"):
        there.sum().item()
