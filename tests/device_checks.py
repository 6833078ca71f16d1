"""That everything stays on a device. Plain functions: a machine with a GPU need not have pytest.

Each takes a `Device`, real or fake; see `test_on_device.py`.
"""

from functools import partial

import kinds
import torch
from torch import nn
from torch.utils import _pytree

from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments import weights
from ramlib.experiments.measure import measure


class Device:
    """A GPU, and what is different where there is none."""

    # Where gradients are computed.
    slopes = "cuda"
    real = True

    def generator(self):
        return torch.Generator("cuda").manual_seed(0)

    def watch(self):
        """From here on, nothing may ask for a value: it would make the device wait."""
        torch.cuda.set_sync_debug_mode("error")

    def invent_values(self):
        """From here on, who asks for a value gets one, if need be one that is made up."""

    def without_files(self):
        """From here on, weights need not be read."""


def assert_on(where, values):
    """Every tensor is on the device."""
    leaves = [leaf for leaf in _pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    assert leaves, "no tensor"
    found = {leaf.device.type for leaf in leaves}
    assert found == {where}, found


def batch(model, where):
    return kinds.images(model, 4).to(where), kinds.labels(model, 4).to(where)


def canvases_are_made_where_their_generator_is(device, target, overlapping):
    task = ClutteredDigits(target, overlapping=overlapping)
    task.sample(2, generator=device.generator())  # loads the digits
    generator = device.generator()
    device.watch()
    assert_on("cuda", tuple(task.sample(4, generator=generator)))


def a_training_step_asks_for_no_value(device, kind):
    # The loss and Adam on one device, and the slopes on another where they must be.
    for where in dict.fromkeys(("cuda", device.slopes)):
        model = kinds.build(kind).train().to(where)
        images, labels = batch(model, where)
        optimiser = torch.optim.Adam(model.parameters(), fused=where == "cuda")

        def step(where=where, model=model, images=images, labels=labels, optimiser=optimiser):
            optimiser.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                loss = model.objective(images, labels)
            if where == device.slopes:
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                assert_on(where, [value.grad for value in model.parameters()])
            if where == "cuda":
                for value in model.parameters():
                    value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                optimiser.step()
            return loss

        step()  # makes the state of Adam
        device.watch()
        assert_on(where, step())


def a_reader_learns_there(device, kind):
    model = kinds.build(kind).train().to("cuda")
    images, labels = batch(model, "cuda")
    assert_on("cuda", model.loss(model(images), labels))
    if device.real:  # reads each number to its end, and so asks how long they are
        model.objective(images, labels).backward()
        assert_on("cuda", [value.grad for value in model.parameters()])


def a_rollout_is_where_its_images_are(device, kind, noisy):
    model = kinds.build(kind).to("cuda")
    device.invent_values()
    assert_on("cuda", model(batch(model, "cuda")[0], noisy=noisy))


def a_model_answers_there_to_images_from_anywhere(device, kind, passes):
    model = kinds.build(kind).to("cuda")
    device.invent_values()
    assert_on("cuda", model.predict(kinds.images(model, 4), passes=passes))


def a_model_is_measured_where_it_is(device, target):
    task = ClutteredDigits(target, distractors=1, size=32)
    config, _ = kinds.KINDS["context and convolutions"]
    model = config.build(task.image_shape, task.classes).eval().to("cuda")
    device.invent_values()
    assert measure(task, model, "validation", 6, passes=2)["error"].n > 0


def what_ships_is_loaded_to_it(device, name):
    device.without_files()
    model = weights.load(name, device="cuda")
    assert_on("cuda", [*model.parameters(), *model.buffers()])


# Readers group a batch by the lengths of its numbers, and so must know them.
_READERS = [kind for kind in kinds.KINDS if kind.startswith("reader")]
_BLIND = [k for k in kinds.KINDS if k not in kinds.UNTRAINED and k not in _READERS]
_CANVASES = [("digit", 0.0), ("pair", 0.0), ("pair", 0.2), ("sum", 0.2)]
_SHIPPED = ["digit", "pairs-ior-closer", "house-numbers-twin-both"]

CHECKS = {
    f"{function.__name__}[{'-'.join(map(str, case))}]": partial(
        lambda device, function, case: function(device, *case), function=function, case=case
    )
    for function, cases in {
        canvases_are_made_where_their_generator_is: _CANVASES,
        a_training_step_asks_for_no_value: [(kind,) for kind in _BLIND],
        a_reader_learns_there: [(kind,) for kind in _READERS],
        a_rollout_is_where_its_images_are: [(k, n) for k in kinds.KINDS for n in (False, True)],
        a_model_answers_there_to_images_from_anywhere: [
            (kind, passes) for kind in kinds.KINDS for passes in (0, 2)
        ],
        a_model_is_measured_where_it_is: [("digit",), ("pair",)],
        what_ships_is_loaded_to_it: [(name,) for name in _SHIPPED],
    }.items()
    for case in cases
}
