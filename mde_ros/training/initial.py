"""What a training starts from: a network, and a checkpoint or ImageNet weights of its encoder."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mde_ros.checkpoint import load
from mde_ros.config import ConfigError
from mde_ros.networks import demands, make_network
from mde_ros.networks.backbones import Backbone, load_imagenet, make_backbone
from mde_ros.networks.saliency import LightSaliencyNet, SaliencyNet
from mde_ros.networks.smoothing import SmoothingMask
from mde_ros.networks.video import PoseNet, two_frames
from mde_ros.runtime import ModelSpec, find_model, shipped_models

# timm's name of each backbone's ImageNet weights; those of torchvision or Cadene where it has them.
TIMM = {
    "resnet18": "resnet18.tv_in1k",
    "resnet34": "resnet34.tv_in1k",
    "resnet50": "resnet50.tv_in1k",
    "densenet161": "densenet161.tv_in1k",
    "senet154": "legacy_senet154.in1k",
    "mobilenet_v2": "mobilenetv2_100.ra_in1k",
}


def initial_path(initial: str) -> Path:
    """The file of initial weights: that of a shipped model, or the path itself.

    Raises:
        ModelError: when the shipped model has no checkpoint here.
    """
    if initial in ("default", "completion", *shipped_models()):
        return find_model(initial, ".safetensors")
    return Path(os.path.expandvars(initial))


def initial_focal_px(initial: str, pixels: int) -> float | None:
    """The canonical focal length of the checkpoint that is started from, at an area of `pixels`.

    None where it is no checkpoint, or has none.
    """
    path = initial_path(initial)
    if path.suffix != ".safetensors":
        return None
    spec = load(path).spec
    focal_px = spec.get("focal_px")
    return focal_px and focal_px * (pixels / spec.get("pixels", ModelSpec.pixels)) ** 0.5


def check_student(name: str) -> None:
    """Raises ConfigError unless the network of this name makes one depth map of an image alone.

    Raises:
        NetworkError: when there is no such network.
    """
    with torch.device("meta"):  # nothing is computed, and no random number drawn
        check_depth_network(make_network(name), {}, f"network: {name}")


def check_depth_network(network: nn.Module, spec: dict[str, Any], name: str) -> None:
    """Raises ConfigError unless the network makes one depth map of an image alone, in metres.

    Args:
        spec: of its checkpoint, if it has one.
    """
    known = demands(network) | spec
    if known.get("takes_points"):
        raise ConfigError(f"{name} needs LiDAR points; expected a network of images alone")
    if not known.get("metric", True):
        raise ConfigError(f"{name} knows no metres; expected a network of metric depth")
    if isinstance(network, (SaliencyNet, LightSaliencyNet, SmoothingMask)):
        raise ConfigError(f"{name} gives a mask; expected a network of depth")
    with torch.no_grad():
        answer = network.eval()(torch.zeros(1, 3, 64, 64))
    if not isinstance(answer, Tensor):
        raise ConfigError(f"{name} gives more than depth; expected a network of depth alone")


def load_encoder(network: nn.Module, name: str, initial: str) -> None:
    """Start from a checkpoint, or from ImageNet weights of the encoder.

    Of another network's checkpoint all tensors of the same name and shape are taken, and the
    encoder must be among them.

    Args:
        name: of the network.
        initial: a shipped model, a .safetensors checkpoint, a .pt file of ImageNet weights, or
            `imagenet`, which has timm fetch them.

    Raises:
        ConfigError: when it is none of these. ImportError: without timm.
    """
    if initial == "imagenet":
        load_imagenet(cast(Backbone, network.encoder), imagenet_weights(name))
        return
    path = initial_path(initial)
    try:
        if path.suffix == ".safetensors":
            loaded = load(path)
            own, given = network.state_dict(), loaded.network.state_dict()
            shared = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
            if not all(k in shared for k in own if k.startswith("encoder.")):
                raise ConfigError(f"{loaded.network_name} has another encoder than {name}")
            network.load_state_dict(shared, strict=False)
        else:
            # Public ImageNet weights come as .pt; weights_only admits tensors and no code.
            weights = torch.load(path, map_location="cpu", weights_only=True)
            load_imagenet(cast(Backbone, network.encoder), weights)
    except Exception as error:  # torch.load raises whatever a foreign file makes it
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ConfigError(f"initial: {path} cannot be used ({reason})") from None


def imagenet_weights(network: str) -> dict[str, Tensor]:
    """ImageNet weights of a network's encoder by the names they have here, fetched by timm.

    Raises:
        ConfigError: when timm cannot get them. ImportError: without timm.
    """
    backbone = next((b for b in TIMM if b in network), None)
    if backbone is None:
        raise ConfigError(
            f"initial: timm has no ImageNet weights of the encoder of {network}; give its authors'"
            " .pt file instead"
        )
    try:
        import timm

        theirs = timm.create_model(TIMM[backbone], pretrained=True).state_dict()
    except ImportError:
        raise
    except Exception as error:  # of the network, of the disk, of a torchvision that does not fit
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ConfigError(
            f"initial: timm could not get {TIMM[backbone]} ({reason}); give a .pt file of"
            " ImageNet weights instead"
        ) from None
    with torch.device("meta"):
        own = make_backbone(backbone).state_dict()
    if own.keys() & theirs.keys():
        return theirs
    # timm's MobileNet-V2 has the same tensors in the same order under names of its own.
    return dict(zip(own, theirs.values()))


def start_pose(pose: PoseNet, backbone: str, network: nn.Module, name: str, initial: str) -> None:
    """Start a pose network's encoder from the weights of the depth network's if it is the same.

    Args:
        name: of the depth network.        initial: what that one started from.
    """
    if name.endswith(backbone):
        pose.encoder = two_frames(deepcopy(network.encoder))  # type: ignore[arg-type]
    elif initial == "imagenet":
        encoder = make_backbone(backbone)
        load_imagenet(encoder, imagenet_weights(backbone))
        pose.encoder = two_frames(encoder)
