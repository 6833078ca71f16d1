"""Birds: what is kept of a network's features, how boxes are found, chosen and judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cub_files import write_cub
from tolerances import assert_near
from torch.nn import functional as F

from ramlib.data import birds as data
from ramlib.experiments import birds
from ramlib.experiments.birds import BirdMaps, fit_probe
from ramlib.models import features

MAPS = (4, 16, 16)


class Network(torch.nn.Module):
    """A small frozen network that `FrozenMaps` can look into."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stage = torch.nn.Conv2d(3, 4, 16, 16)
        self.end = torch.nn.Conv2d(4, 6, 2, 2)
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        self.feature_info = [{"module": "stage"}]
        self.calls = 0

    def forward_features(self, images):
        self.calls += 1
        return self.end(self.stage(images).relu())


@pytest.fixture(autouse=True)
def network(tmp_path, monkeypatch):
    """A cache and a network of the test's own."""
    own = Network().requires_grad_(False)
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAMLIB_DATA", raising=False)
    monkeypatch.setattr(birds, "MAPS", MAPS)
    monkeypatch.setattr(features, "pretrained", lambda name, dtype: own.to(dtype))
    data.load.cache_clear()
    birds.kept.cache_clear()
    return own


@pytest.fixture
def task(tmp_path):
    """Three classes of six training and two test photographs, seen through that network."""
    return BirdMaps("cub", str(write_cub(tmp_path / "cub")), 3, backbone="own")


class TestProbe:
    def test_has_no_slope_left(self):
        x, y = torch.randn(60, 5), torch.arange(60) % 3
        probe = fit_probe(x, y, 3, l2=0.05)
        weight = probe.weight.clone().requires_grad_()
        scores = (x - probe.mean) / probe.scale @ weight + probe.bias
        loss = F.cross_entropy(scores, y) + 0.025 * weight.square().sum()
        (slope,) = torch.autograd.grad(loss, weight)
        assert slope.abs().max() < 1e-3

    def test_learns_what_a_line_can_tell(self):
        x = torch.randn(90, 4)
        y = x[:, :3].argmax(1)
        assert (fit_probe(x, y, 3, l2=1e-3).scores(x).argmax(1) == y).float().mean() > 0.95


class TestKept:
    def test_are_the_networks_maps_of_each_photograph_and_its_mirror_image(self, task, network):
        maps = task.kept.maps
        images = task.photographs.of(np.array([5])).images
        for place, one in enumerate((images, images.flip(3))):
            with torch.no_grad():
                direct = network.float().stage((one - 0.5) / 0.5)
            assert_near(torch.from_numpy(maps[5, place]).float(), direct[0], atol=0.02, rtol=0.02)

    def test_are_made_once(self, task, network):
        first = task.kept
        calls = network.calls
        birds.kept.cache_clear()
        again = task.kept
        assert network.calls == calls
        np.testing.assert_array_equal(again.maps, first.maps)
        np.testing.assert_array_equal(again.evidence, first.evidence)

    def test_an_interruption_leaves_nothing_half_made(self, task, network, monkeypatch, tmp_path):
        see = birds.see

        def stop(*args, **options):
            if network.calls >= 1:
                raise KeyboardInterrupt
            return see(*args, **options)

        monkeypatch.setattr(birds, "see", stop)
        with pytest.raises(KeyboardInterrupt):
            _ = task.kept
        assert list((tmp_path / "cache" / "bird-maps").rglob("*.npy*")) == []
        monkeypatch.setattr(birds, "see", see)
        assert len(task.kept.maps) == 24

    def test_evidence_is_zero_or_more_and_somewhere(self, task):
        evidence = task.kept.evidence
        assert evidence.shape == (24, 2, 16, 16)
        assert (evidence >= 0).all()
        assert (evidence.sum((2, 3)) > 0).all()


class TestBirdMaps:
    def test_batches_hold_maps_boxes_and_evidence(self, task):
        batch = next(task.batches("test"))
        assert batch.images.shape == (6, *MAPS)
        assert_near(batch.evidence.sum((1, 2)), torch.ones(6))
        rows = task.rows("test")
        assert_near(batch.boxes, task.photographs.boxes[rows].astype(np.float32))

    def test_half_of_what_is_trained_on_is_mirrored_with_its_box(self, task):
        batch = task.sample(60, generator=torch.Generator().manual_seed(0))
        own = torch.from_numpy(task.photographs.boxes).float()
        straight = (batch.boxes[:, None] - own).abs().sum(2).amin(1) < 1e-3
        assert 15 < straight.sum() < 45
        mirrored = torch.stack([256 - own[:, 2], own[:, 1], 256 - own[:, 0], own[:, 3]], 1)
        turned = batch.boxes[~straight]
        assert ((turned[:, None] - mirrored).abs().sum(2).amin(1) < 1e-3).all()

    def test_validation_is_never_mirrored(self, task):
        batch = task.sample(30, split="validation", generator=torch.Generator().manual_seed(0))
        own = torch.from_numpy(task.photographs.boxes).float()
        assert ((batch.boxes[:, None] - own).abs().sum(2).amin(1) < 1e-3).all()


def test_recipes_differ_between_ours_and_the_papers_only_as_they_say():
    ours, papers = birds.RECIPES["birds-localizer"], birds.RECIPES["birds-localizer-paper"]
    assert papers.model.evidence == papers.model.area == 0
    assert papers.model.resets == 10
    same = {"evidence", "area", "reset_every", "resets"}
    for name, value in vars(papers.model).items():
        assert name in same or value == getattr(ours.model, name)


def test_what_ships_of_the_sample_is_what_the_network_sees():
    """As sharp as eight bits; the network itself is not asked here."""
    birds.kept.cache_clear()
    seen = birds.kept(data.SAMPLE)
    n = len(data.load(data.SAMPLE, quiet=True).sizes)
    assert seen.maps.shape == (n, 2, 112, 16, 16)
    assert seen.pooled.shape == (n, 2, 1280)
    assert seen.evidence.shape == (n, 2, 16, 16)
    # What is pooled knows left from right as little as the network was taught to.
    assert np.corrcoef(seen.pooled[:, 0].ravel(), seen.pooled[:, 1].ravel())[0, 1] > 0.8
    assert birds.SHIPPED.stat().st_size < 3_000_000


def test_a_task_of_the_sample_is_the_public_one():
    assert replace(birds.CUB, threshold=0.25).public == BirdMaps()
