"""Every kind of model can be captured whole: by torch.compile, torch.export and as ONNX.

The checks of shapes in other tests cannot be captured, so `test_export.py` runs this file alone.
"""

import io
import warnings

import kinds
import numpy as np
import onnxruntime
import pytest
import torch
from tolerances import assert_near
from torch.utils import _pytree

from ramlib import labels
from ramlib.baselines import goodfellow
from ramlib.models import reader

each_kind = pytest.mark.parametrize("kind", kinds.KINDS)
each_trained = pytest.mark.parametrize("kind", set(kinds.KINDS) - set(kinds.UNTRAINED))


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch):
    """Numbers have two digits at most here."""
    for module in (labels, reader, goodfellow, kinds):
        for name, value in {"LONGEST": 2, "OBJECTS": 3}.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    torch._dynamo.reset()


def assert_same(rollout, expected):
    """All that a reader found until it ended is the same; a captured one goes on to the end."""
    found, wanted = (_pytree.tree_flatten_with_path(r)[0] for r in (rollout, expected))
    assert [path for path, _ in found] == [path for path, _ in wanted]
    for (_, value), (_, other) in zip(found, wanted, strict=True):
        assert value.dtype == other.dtype
        if value.is_floating_point():
            assert_near(value, other)
        else:
            assert torch.equal(value, other)


def whole(model, images):
    """What a model says that does not end early."""
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        return model(images)


@each_kind
def test_answer_does_not_depend_on_where_a_reader_ends(kind):
    model = kinds.build(kind)
    images = kinds.images(model, 5)
    assert torch.equal(whole(model, images).labels, model(images).labels)


@each_kind
def test_compiles_without_a_break_and_says_the_same(kind):
    model = kinds.build(kind)
    captured = torch.compile(model, fullgraph=True, backend="eager")
    images = kinds.images(model, 3)
    with torch.no_grad():
        assert_same(captured(images), whole(model, images))


@each_trained
def test_a_step_compiles_without_a_break_and_has_the_same_gradient(kind):
    model = kinds.build(kind)
    images, targets = kinds.images(model, 3), kinds.labels(model, 3)
    model.objective(images, targets).backward()
    expected = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    torch.compile(model.objective, fullgraph=True, backend="eager")(images, targets).backward()
    for name, value in model.named_parameters():
        if expected[name] is None:  # a first look remembers nothing
            assert value.grad is None
        else:
            assert_near(value.grad, expected[name])


@each_kind
def test_exports_with_any_number_of_images_and_to_onnx(kind):
    model = kinds.build(kind)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (kinds.images(model, 3),), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of onnxscript, about itself
        written = torch.onnx.export(program, dynamo=True, verbose=False)
    file = io.BytesIO()
    written.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    for count in (1, 7):
        images = kinds.images(model, count, seed=count)
        expected = whole(model, images)
        with torch.no_grad():
            assert_same(program.module()(images), expected)
        found = session.run(None, {given.name: images.numpy()})
        for value, other in zip(found, _pytree.tree_leaves(expected), strict=True):
            np.testing.assert_allclose(value, other, atol=2e-4, rtol=2e-4)
