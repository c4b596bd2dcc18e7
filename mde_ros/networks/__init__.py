"""The networks, one figure of a paper per file; NETWORKS names what a checkpoint may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from mde_ros.networks.completion import DepthCompletionNet, SparseToDenseNet
from mde_ros.networks.fcrn import FcrnNet
from mde_ros.networks.lifelong import LifelongNet
from mde_ros.networks.light_completion import LightCompletion
from mde_ros.networks.mff import FastNet, LightNet, MffNet
from mde_ros.networks.saliency import LightSaliencyNet, SaliencyNet
from mde_ros.networks.sarpn import SarpnNet
from mde_ros.networks.smoothing import SmoothingMask
from mde_ros.networks.video import Decoder, LightDecoder, VideoNet


class NetworkError(ValueError):
    """A network that there is not."""


@dataclass(frozen=True)
class Network:
    """How to make a network, and which publication it is from."""

    make: Callable[..., nn.Module]
    source: str


NETWORKS = {
    "mff_resnet50": Network(partial(MffNet, "resnet50"), "Hu et al., WACV 2019"),
    "mff_resnet18": Network(partial(MffNet, "resnet18"), "Hu et al., WACV 2019"),
    "mff_densenet161": Network(partial(MffNet, "densenet161"), "Hu et al., WACV 2019"),
    "mff_senet154": Network(partial(MffNet, "senet154"), "Hu et al., WACV 2019"),
    "fcrn_resnet50": Network(partial(FcrnNet, "resnet50"), "Laina et al., 3DV 2016"),
    "fcrn_resnet18": Network(partial(FcrnNet, "resnet18"), "Laina et al., 3DV 2016"),
    "sarpn_senet154": Network(partial(SarpnNet, "senet154", 256), "Chen et al., IJCAI 2019"),
    "sarpn_resnet34": Network(partial(SarpnNet, "resnet34", 128), "Chen et al., IJCAI 2019"),
    "light_resnet34": Network(partial(LightNet, "resnet34"), "Hu et al., KSEM 2023 (teacher)"),
    "light_mobilenet_v2": Network(partial(LightNet, "mobilenet_v2"), "Hu et al., KSEM 2023"),
    "fast_mobilenet_v2": Network(partial(FastNet, "mobilenet_v2"), "ours, after KSEM 2023"),
    "s2d_resnet18": Network(partial(SparseToDenseNet, "resnet18"), "Ma & Karaman, ICRA 2018"),
    "s2d_resnet34": Network(partial(DepthCompletionNet, "resnet34"), "Ma et al., ICRA 2019"),
    "s2d_resnet18_uncertain": Network(
        partial(SparseToDenseNet, "resnet18", uncertainty=True), "the same with s of RA-L 2023"
    ),
    "s2d_resnet34_uncertain": Network(
        partial(DepthCompletionNet, "resnet34", uncertainty=True), "the same with s of RA-L 2023"
    ),
    "lifelong_resnet34": Network(partial(LifelongNet, "resnet34"), "Hu et al., TNNLS"),
    "lifelong_mobilenet_v2": Network(
        partial(LifelongNet, "mobilenet_v2", fast=True, mean_sizes=((1, 1),)),
        "ours, after TNNLS",
    ),
    "completion_mobilenet_v2": Network(LightCompletion, "ours, trained after RA-L 2023"),
    "monodepth2_resnet18": Network(
        partial(VideoNet, "resnet18", Decoder), "Godard et al., ICCV 2019"
    ),
    "cadepth_resnet50": Network(
        partial(VideoNet, "resnet50", partial(Decoder, attention=True)), "Yan et al., 3DV 2021"
    ),
    "video_mobilenet_v2": Network(
        partial(VideoNet, "mobilenet_v2", LightDecoder), "ours, after ICCV 2019"
    ),
    "saliency_drn22": Network(partial(SaliencyNet, 22), "Hu et al., ICCV 2019 (mask)"),
    "saliency_drn38": Network(partial(SaliencyNet, 38), "Hu & Okatani 2019 (mask)"),
    "saliency_drn54": Network(partial(SaliencyNet, 54), "Hu & Okatani 2019 (mask)"),
    "saliency_mobilenet_v2": Network(LightSaliencyNet, "ours, after ICCV 2019 (mask)"),
    "defence_smoothing": Network(SmoothingMask, "ours, trained as Hu & Okatani 2019 (mask)"),
}
MASKS = tuple(name for name in NETWORKS if name.startswith(("saliency_", "defence_")))


def make_network(name: str, **options: Any) -> nn.Module:
    """A network with fresh weights.

    Args:
        options: further arguments of its class, as a network's own `options` tell them.

    Raises:
        NetworkError: on an unknown name; the message lists the valid ones.
    """
    if name not in NETWORKS:
        raise NetworkError(f"network: expected one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name].make(**options)


def demands(network: nn.Module) -> dict[str, Any]:
    """What a network's class says of itself: ModelSpec's takes_points, multiple and metric."""
    names = ("takes_points", "multiple", "metric")
    return {name: getattr(network, name) for name in names if hasattr(network, name)}
