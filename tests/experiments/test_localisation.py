"""Table IV: cuts are kept, boxes are found, and every way of cutting is judged alike."""

import numpy as np
import pytest
import torch
from cub_files import write_cub
from tolerances import assert_near

from ramlib.data import birds as data
from ramlib.experiments import birds, localisation, training
from ramlib.experiments.birds import BirdMaps
from ramlib.experiments.localisation import (
    around_evidence,
    central_box,
    grow,
    interval,
    overlap,
    photographs_needed,
    pooled_of,
)
from ramlib.experiments.recipe import Recipe
from ramlib.models import features
from ramlib.models.localizer import LocalizerConfig

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


class TestCuts:
    def test_cuts_of_the_whole_are_the_whole(self, task):
        whole = np.tile([0.0, 0, 256, 256], (24, 1))
        rows = np.array([3, 20, 7])
        pooled = torch.from_numpy(task.kept.pooled[rows])
        assert_near(pooled_of(task, whole, rows), pooled, atol=0.05, rtol=0.05)

    def test_cuts_are_kept_up_to_a_number(self, task, network, monkeypatch, tmp_path):
        monkeypatch.setattr(localisation, "KEPT_CUTS", 2)
        boxes = [np.tile([0.0, 0, 100 + k, 256], (24, 1)) for k in range(4)]
        for one in boxes:
            pooled_of(task, one, np.arange(4))
        assert len(list((tmp_path / "cache").rglob("cuts/*.npy"))) == 2
        calls = network.calls
        pooled_of(task, boxes[-1], np.arange(4))
        assert network.calls == calls


class TestTrained:
    def test_a_localiser_trains_on_it(self, task, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)
        monkeypatch.setattr(training, "VALIDATION_BATCH", 4)
        model = LocalizerConfig("own", MAPS, size=4, hidden=8, width=4, evidence=20.0, area=11.0)
        recipe = Recipe(
            "tiny", "Tiny", task, model, updates=40, batch=8, rate=2e-3, policy_share=5.0,
            warmup=5, clip=5.0, precision="32-true",
        )  # fmt: skip
        own = localisation.trained(recipe, tmp_path / "runs")
        assert_near(own.prepare.scale.flatten(), torch.from_numpy(
            np.asarray(task.kept.maps, np.float32)[task.rows("train"), 0]).std((0, 2, 3)),
            atol=0.02, rtol=0.02)  # fmt: skip
        fresh = recipe.build()
        assert not torch.equal(own.f_ext.linear.weight, fresh.f_ext.linear.weight)
        assert (tmp_path / "runs" / "tiny-0" / "weights.safetensors").is_file()


class TestBoxes:
    def test_around_evidence_is_the_box_of_its_strongest_piece(self):
        evidence = torch.zeros(1, 16, 16)
        evidence[0, 4:8, 6:12] = 1.0
        evidence[0, 13, 1] = 0.8
        (box,) = around_evidence(evidence, 0.5)
        assert_near(box, torch.tensor([96.0, 64, 192, 128]), atol=9, rtol=0)

    def test_central_box_is_the_best_of_the_grid(self):
        boxes = torch.tensor([[64.0, 51.2, 192, 204.8]]).expand(5, 4)  # .5 x .6 about (.5, .5)
        found, mean = central_box(boxes)
        assert_near(found, boxes[0], atol=0.1, rtol=0)
        assert mean == pytest.approx(1, abs=1e-3)

    def test_grow_keeps_the_centre(self):
        grown = grow(torch.tensor([[10.0, 20, 30, 60]]), 1.2)
        assert_near(grown, torch.tensor([[8.0, 16, 32, 64]]))

    def test_overlap_knows_how_much_is_covered(self):
        truth = torch.tensor([[0.0, 0, 100, 100]])
        found = overlap(torch.tensor([[[0.0, 0, 100, 50]], [[0, 0, 200, 100]]]), truth)
        assert found["iou"]["value"] == pytest.approx(50, abs=0.1)
        assert found["covered"]["value"] == pytest.approx(100 * (0.5 + 1) / 2, abs=0.1)
        assert found["centre_inside"]["seeds"] == 2


class TestInterval:
    def test_of_one_seed_is_that_of_a_mean(self):
        rows = (torch.rand(1, 400) < 0.3).float()
        found = interval(rows)
        half = 1.96 * rows.std() / 20
        assert found["low"] == pytest.approx(100 * float(rows.mean() - half), abs=1)
        assert found["high"] == pytest.approx(100 * float(rows.mean() + half), abs=1)

    def test_seeds_that_differ_widen_it(self):
        alike = (torch.rand(1, 300) < 0.5).float().expand(5, 300)
        apart = alike * torch.linspace(0.5, 1.5, 5)[:, None]
        widths = [found["high"] - found["low"] for found in map(interval, (alike, apart))]
        assert widths[1] > 1.5 * widths[0]

    def test_is_the_same_every_time(self):
        rows = torch.rand(3, 50)
        assert interval(rows) == interval(rows)

    def test_photographs_needed_grows_with_the_scatter(self):
        gains = torch.tensor([[1.0, -1, 0, 0] * 25])
        n = photographs_needed(gains)
        assert n == pytest.approx((1.96 * gains.std().item() / 0.012) ** 2, abs=1)


class TestTableRows:
    def test_every_way_of_cutting_is_judged_alike(self, task):
        test = task.rows("test")
        truth = torch.from_numpy(task.photographs.boxes).float()
        whole = torch.tensor([0.0, 0, 256, 256]).expand_as(truth)
        learnt = [localisation.Cut("ram", "RAM", torch.stack([whole, truth]))]
        rows = {row["recipe"]: row for row in localisation.table_rows(task, learnt)}
        assert next(iter(rows)) == "birds-cub-whole"
        assert {"birds-cub-truth", "birds-cub-central", "birds-cub-layercam"} < set(rows)
        ram = rows["birds-cub-ram"]
        assert (ram["accuracy"]["n"], ram["accuracy"]["seeds"]) == (len(test), 2)
        assert rows["birds-cub-truth"]["iou"]["value"] == 100
        # One of its seeds is the whole, the other the truth.
        middle = [rows[f"birds-cub-{name}"]["iou"]["value"] for name in ("whole", "truth")]
        assert ram["iou"]["value"] == pytest.approx(sum(middle) / 2, abs=0.02)
        truth, whole = (rows[f"birds-cub-{name}"] for name in ("truth", "whole"))
        gain = truth["accuracy"]["value"] - whole["accuracy"]["value"]
        assert truth["gain"]["value"] == pytest.approx(gain, abs=0.02)


class TestPull:
    def test_evidence_outside_is_least_where_the_window_is_on_the_evidence(self, task):
        model = LocalizerConfig("own", MAPS, size=4, hidden=8, width=4).build((3, 256, 256), 3)

        class Centred(BirdMaps):
            """All evidence in the middle of each box."""

            def batches(self, *arguments, **options):
                for batch in BirdMaps.batches(self, *arguments, **options):
                    x, y = ((batch.boxes[:, :2] + batch.boxes[:, 2:]) / 32).long().unbind(1)
                    evidence = torch.zeros_like(batch.evidence)
                    evidence[torch.arange(len(x)), y, x] = 1
                    yield batch._replace(evidence=evidence)

        rows = localisation.pull(Centred("cub", task.folder, 3, backbone="own"), model.eval())
        outside = {row["distance"]: row["outside"] for row in rows}
        assert min(outside, key=outside.get) == pytest.approx(0, abs=0.26)
        assert outside[0.0] < 0.05
        assert outside[0.5] > 0.3
        assert len(rows) == 17
