"""Grids and rollouts are pytrees, and every kind of model can be captured whole."""

import os
import subprocess
import sys
from pathlib import Path

import kinds
import pytest
import torch
from tolerances import assert_near
from torch.utils import _pytree

from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Rollout


class TestPytrees:
    def grid(self, *shape):
        return GlimpseGrid(*torch.rand(6, *shape))

    def test_a_grid_has_six_leaves_and_comes_back(self):
        grid = self.grid(2, 3)
        leaves, spec = _pytree.tree_flatten(grid)
        assert [leaf.data_ptr() for leaf in leaves] == [v.data_ptr() for v in vars(grid).values()]
        again = _pytree.tree_unflatten(leaves, spec)
        assert isinstance(again, GlimpseGrid)
        assert all(again.__dict__[name] is value for name, value in vars(grid).items())

    def test_a_rollouts_leaves_are_what_it_has(self):
        logits, grids = torch.rand(2, 3, 4), self.grid(2, 3)
        rollout = Rollout(logits, grids=grids)
        assert len(_pytree.tree_leaves(rollout)) == 7
        doubled = _pytree.tree_map(lambda leaf: 2 * leaf, rollout)
        assert torch.equal(doubled.logits, 2 * logits)
        assert torch.equal(doubled.grids.sigma, 2 * grids.sigma)
        assert doubled.windows is None
        assert doubled.labels.shape == (2,)

    def test_leaves_need_not_be_tensors(self):
        shapes = _pytree.tree_map(lambda leaf: leaf.shape, self.grid(5))
        assert shapes.gamma == (5,)

    def test_paths_name_the_fields(self):
        rollout = Rollout(torch.rand(1, 1, 2), grids=self.grid(1, 1))
        paths = [_pytree.keystr(path) for path, _ in _pytree.tree_flatten_with_path(rollout)[0]]
        assert paths[:2] == [".logits", ".grids.c_x"]

    def test_derivatives_of_each_image_by_vmap(self):
        model = kinds.build("digit")
        images = kinds.images(model, 3)

        def last(image):
            rollout = model(image[None])
            return rollout.logits[0, -1].max(), rollout

        slopes, rollouts = torch.func.vmap(torch.func.grad(last, has_aux=True))(images)
        assert isinstance(rollouts, Rollout)
        given = images.clone().requires_grad_()
        model(given).logits[:, -1].amax(-1).sum().backward()
        assert_near(slopes, given.grad)


@pytest.mark.timeout(1200)
def test_every_kind_is_compiled_exported_and_written_as_onnx():
    file = Path(__file__).with_name("captures.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600", file],
        env=os.environ | {"RAMLIB_UNCHECKED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    # Of each kind: where it ends, the answer, and the export; and a step of what is trained.
    count = 4 * len(kinds.KINDS) - len(kinds.UNTRAINED)
    assert f"{count} passed" in done.stdout
