"""The localiser: where it looks, what it is charged, and what it forgets."""

from dataclasses import replace

import pytest
import torch
from tolerances import assert_near
from torch.nn import functional as F

from ramlib.models import features
from ramlib.models.localizer import (
    Localizer,
    LocalizerConfig,
    MapBatch,
    sharpen,
    smooth,
    soft_inside,
)
from ramlib.tasks import Task

SMALL = LocalizerConfig("none", maps=(6, 16, 16), size=4, hidden=16, width=4, dropout=0.0)
SHAPE = (3, 256, 256)


def model(**changes):
    return replace(SMALL, **changes).build(SHAPE, 3)


def batch(count=4, where=None):
    """Maps of noise; all evidence in one cell, if `where` names one."""
    evidence = torch.rand(count, 16, 16)
    if where is not None:
        evidence = torch.zeros(count, 16, 16)
        evidence[:, where[0], where[1]] = 1
    evidence = evidence / evidence.sum((1, 2), keepdim=True)
    maps, labels = torch.randn(count, 6, 16, 16), torch.arange(count) % 3
    return MapBatch(maps, labels, torch.zeros(count, 4), evidence)


class TestForward:
    def test_windows_are_in_pixels_of_the_photograph(self):
        rollout = model()(torch.randn(2, 6, 16, 16), noisy=False)
        first = rollout.windows[:, 0]
        # Before anything is learnt it is central: 0.7 of 15 cells over 3 steps, for 4 cells.
        side = 0.7 * 15 / 3 * 4 * 16
        centre = (first[:, :2] + first[:, 2:]) / 2
        assert_near(centre, torch.full((2, 2), 128.0), atol=3, rtol=0)
        assert_near(first[:, 2] - first[:, 0], torch.full((2,), side), rtol=0.03, atol=0)

    def test_photographs_pass_through_the_frozen_network_first(self, monkeypatch):
        monkeypatch.setattr(
            features.FrozenMaps, "see",
            lambda self, images: features.Seen(F.avg_pool2d(images, 16).repeat(1, 2, 1, 1), images),
        )  # fmt: skip
        photographs = torch.rand(2, 3, 256, 256)
        maps = F.avg_pool2d(photographs, 16).repeat(1, 2, 1, 1)
        own = model().eval()
        assert_near(own(photographs).logits, own(maps).logits)
        assert_near(own(photographs).windows, own(maps).windows)

    def test_the_first_look_is_the_same_for_all_since_nothing_was_seen(self):
        windows = model()(torch.randn(3, 6, 16, 16), noisy=False).windows
        assert torch.equal(windows[0, 0], windows[2, 0])
        assert not torch.equal(windows[0, 1], windows[2, 1])

    def test_a_reader_of_glimpses_forgets_what_it_saw_before(self):
        """Its answer is a function of the last glimpse alone; a reader of memory's is not."""
        for reads, same in (("glimpse", True), ("memory", False)):
            own = model(reads=reads).eval()
            torch.nn.init.normal_(own.f_class.weight)
            rollout = own(torch.randn(2, 6, 16, 16))
            alone = own.f_class(own.f_glimpse(rollout.glimpses[:, -1]))
            assert torch.allclose(alone, rollout.logits[:, -1], atol=1e-5) is same


class TestLearn:
    def test_without_charges_is_the_cross_entropy_of_the_last_look(self):
        own, some = model(alpha=0.0), batch()
        torch.nn.init.normal_(own.f_class.weight)
        expected = F.cross_entropy(own(some.images).logits[:, -1], some.labels)
        assert_near(own.learn(some, 1), expected)

    def test_charges_the_area_as_a_share_of_the_photograph(self):
        own, some = model(alpha=0.0, area=2.0), batch()
        window = own(some.images).windows[:, -1] / 256
        area = (window[:, 2] - window[:, 0]) * (window[:, 3] - window[:, 1])
        bare = F.cross_entropy(own(some.images).logits[:, -1], some.labels)
        assert_near(own.learn(some, 1) - bare, 2 * area.mean(), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("where", "direction"), [((8, 1), -1), ((8, 14), 1)])
    def test_evidence_pulls_the_window_to_its_side(self, where, direction):
        torch.manual_seed(0)
        own, some = model(alpha=0.0, evidence=20.0, window=SMALL.window), batch(where=where)
        own.learn(some, 1).backward()
        assert direction * -own.f_ext.linear.bias.grad[0] > 0

    def test_evidence_inside_costs_nothing(self):
        own = model(alpha=0.0, evidence=20.0)
        inside, outside = (own.learn(batch(where=w), 1).item() for w in ((8, 8), (0, 0)))
        bare = model(alpha=0.0).learn(batch(), 1).item()
        assert inside == pytest.approx(bare, abs=0.3)
        assert outside > bare + 15

    def test_forgets_at_every_reset_and_at_no_other_step(self):
        own = model(reset_every=10, resets=2)
        forgot = []
        for update in range(41):
            torch.nn.init.ones_(own.f_class.weight)
            own.learn(batch(2), update)
            if not own.f_class.weight.any():
                forgot.append(update)
        assert forgot == [10, 20]

    @pytest.mark.usefixtures("as_installed")
    def test_evidence_that_the_batch_lacks_is_asked_for(self):
        from ramlib.tasks import Batch

        with pytest.raises(ValueError, match="class evidence is charged, but the batch has none"):
            model(evidence=1.0).learn(Batch(torch.randn(2, 6, 16, 16), torch.tensor([0, 1])), 0)


class TestAdapt:
    def test_standardises_over_the_training_maps(self):
        class Maps(Task):
            def batches(self, split, *_, **__):
                assert split == "train"
                yield from (batch(3), batch(5))

        torch.manual_seed(1)
        own = model()
        own.adapt(Maps())
        torch.manual_seed(1)
        model()  # the same draws
        joined = torch.cat([one.images for one in Maps().batches("train")])
        assert own.prepare.mean.shape == (6, 1, 1)
        assert_near(own.prepare.scale.flatten(), joined.std((0, 2, 3)), atol=0.1, rtol=0)


class TestLocate:
    @pytest.fixture
    def own(self, monkeypatch):
        monkeypatch.setattr(
            features.FrozenMaps, "see",
            lambda self, images: features.Seen(F.avg_pool2d(images, 16).repeat(1, 2, 1, 1), images),
        )  # fmt: skip
        return model(window=replace(SMALL.window, start=0.99))

    def test_boxes_are_cut_at_the_border(self, own):
        boxes = own.locate(torch.rand(2, 3, 256, 256))
        assert boxes.shape == (2, 4)
        assert boxes.min() >= 0
        assert boxes.max() <= 256
        assert (boxes[:, :2] < boxes[:, 2:]).all()

    def test_mirrored_photographs_have_mirrored_boxes(self, own):
        photographs = torch.rand(3, 3, 256, 256)
        boxes, mirrored = own.locate(photographs), own.locate(photographs.flip(3))
        x1, y1, x2, y2 = mirrored.unbind(1)
        back = torch.stack([256 - x2, y1, 256 - x1, y2], 1)
        assert_near(back, boxes, atol=1e-2, rtol=0)

    def test_joins_windows_by_their_mean_in_the_frame_of_the_photograph(self, own):
        straight = torch.tensor([[[10.0, 20, 110, 220]]])
        mirrored = torch.tensor([[[136.0, 30, 256, 270]]])  # from 0 to 120 in the photograph
        assert_near(own.join(straight, mirrored), [[[5, 25, 115, 245]]])

    def test_has_no_noise_and_leaves_the_mode_as_it_was(self, own):
        photographs = torch.rand(2, 3, 256, 256)
        own.train()
        assert torch.equal(own.locate(photographs), own.locate(photographs))
        assert own.training

    @pytest.mark.usefixtures("as_installed")
    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.rand(2, 3, 224, 224), r"locate: images must have shape \(B, 3, 256, 256\)"),
            (torch.rand(2, 3, 256, 256) * 255, r"locate: images must be finite and in \[0, 1\]"),
        ],
    )
    def test_bad_photographs_are_refused_by_name(self, images, message, own):
        with pytest.raises(ValueError, match=message):
            own.locate(images)


class TestSoftInside:
    def test_is_one_inside_half_on_an_edge_and_zero_outside(self):
        (inside,) = soft_inside(torch.tensor([[4.5, 2.0, 12.0, 14.0]]), (16, 16))
        assert inside[8, 8] > 0.999
        assert inside[8, 4] == pytest.approx(0.5, abs=1e-3)
        assert inside[8, 0] < 1e-3
        assert inside[0, 8] < 0.02

    def test_gradient_is_that_of_finite_differences(self):
        boxes = torch.tensor([[3.2, 2.1, 11.3, 9.9]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda b: soft_inside(b, (6, 7)), boxes)


class TestSharpen:
    def test_sums_to_one_and_keeps_the_peak(self):
        evidence = torch.zeros(1, 16, 16)
        evidence[0, 5, 9], evidence[0, 12, 2] = 1.0, 0.1
        (kept,) = sharpen(evidence, 0.25)
        assert kept.sum().item() == pytest.approx(1, abs=1e-5)
        assert kept.argmax() == 5 * 16 + 9
        assert kept[12, 2] < 0.1 * kept[5, 9]

    def test_no_evidence_is_spread_evenly(self):
        assert_near(sharpen(torch.zeros(1, 4, 4), 0.25), torch.full((1, 4, 4), 1 / 16))

    def test_smooths_by_a_gaussian_of_one_cell(self):
        evidence = torch.zeros(1, 15, 15)
        evidence[0, 7, 7] = 1
        (blurred,) = smooth(evidence)
        weights = torch.exp(-(torch.arange(-3.0, 4) ** 2) / 2)
        weights = weights / weights.sum()
        assert_near(blurred[4:11, 4:11], weights[:, None] * weights)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reads": "x"}, "reads must be one of glimpse, memory, got 'x'"),
        ({"reset_every": 0}, "reset_every must be at least 1 or None, got 0"),
        ({"evidence": -1.0}, "evidence must be at least 0, got -1"),
        ({"area": -1.0}, "area must be at least 0, got -1"),
    ],
)
def test_a_setting_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=f"LocalizerConfig: {message}"):
        LocalizerConfig(**wrong)


def test_is_a_recurrent_attention_model_that_ships_without_its_backbone():
    own = model()
    assert isinstance(own, Localizer)
    assert not any("backbone" in name for name in own.state_dict())
