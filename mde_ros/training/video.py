"""Depth from plain video without labels: Godard et al., ICCV 2019 (Monodepth2; METHODS 9).

From frames t-1, t, t+1 of a moving camera, depth of t and the motion to either neighbour are learnt
together, so that each neighbour, warped, looks like t:

    L = mean over four scales of  min over sources pe  +  smoothness · 2^-s · |∇d*| e^(-|∇I|)

with pe of structure and colour, and without the pixels that look more like the neighbour as it is
(automask). Depth comes out relative, right up to one factor for all images; `mde scale` finds that
with a LiDAR. The network's depth is that of the canonical focal length, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.frame import Camera
from mde_ros.geometry import network_size
from mde_ros.model import normalised_pixels
from mde_ros.networks import NETWORKS, make_network
from mde_ros.networks.backbones import BACKBONES
from mde_ros.networks.video import PoseNet, VideoNet, depth_of
from mde_ros.photometric import (
    focal_ratio,
    inverse,
    least_error,
    motion_matrix,
    photometric_error,
    smoothness,
    warp,
)
from mde_ros.training.batches import loader
from mde_ros.training.initial import load_encoder, start_pose
from mde_ros.training.loop import Companion, LoopSettings, fit, make_fabric
from mde_ros.training.triplets import Clip, Triplets, VideoSource, load_clips
from mde_ros.training.validation import HeldOut, validation

Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def published_schedule(seed: int = 0) -> LoopSettings:
    """20 epochs of 40,000 triplets at batch 12, a tenth of the rate from the 16th on."""
    return LoopSettings(
        steps=66_660,
        batch=12,
        lr=1e-4,
        encoder_lr=1e-4,
        weight_decay=0.0,
        optimizer="adam",
        warmup=0,
        schedule="step",
        step_every=50_000,
        clip=0.0,
        ema=0.0,
        precision="32-true",
        seed=seed,
    )


@dataclass(frozen=True)
class VideoSettings:
    """A disparity network and the recordings that it learns from."""

    network: str = setting("video_mobilenet_v2", "one for video, see `mde networks`")
    initial: str = setting(
        "default",
        "weights to start from: a shipped model, a .safetensors checkpoint, a .pt file of ImageNet"
        " weights of the encoder, or imagenet (timm fetches them)",
    )
    pose_backbone: str = setting(
        "mobilenet_v2", "encoder of the pose network", choices=tuple(BACKBONES)
    )
    sources: tuple[VideoSource, ...] = setting((), "recordings of a moving camera, no depth needed")
    held_out: tuple[HeldOut, ...] = setting(
        (), "data sets with depth to validate on, by the median"
    )
    size: tuple[int, int] = setting(
        (0, 0), "width and height, multiples of 32; 0 0: the shape of the first camera's image"
    )
    pixels: int = setting(304 * 224, "area of that, in pixels", low=1024)
    smallest_crop: float = setting(0.75, "smallest random window, of the image", low=0.05, high=1.0)
    smoothness: float = setting(
        1e-3, "weight of the smoothness, halved from scale to scale", low=0.0
    )
    automask: bool = setting(True, "leave out what looks the same in the neighbour as it is")
    pose_lr: float = setting(1e-4, "peak learning rate of the pose network", low=0.0)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=4000, batch=8, lr=1e-3, encoder_lr=2e-4, warmup=100, precision="32-true"
        )
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError(
                "sources: expected a recording to learn from (--bag FILE, or sources in the"
                " configuration), got none"
            )
        if any(side % VideoNet.multiple for side in self.size):
            raise ConfigError(f"size: expected multiples of {VideoNet.multiple}, got {self.size}")


def video_loss(settings: VideoSettings, pose: nn.Module, focal_px: float, fabric: Fabric) -> Loss:
    """The line in the head of this file.

    Args:
        focal_px: canonical focal length, in pixels of the batch.
    """

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        K = batch["K"]
        before, here, after = (i.permute(0, 3, 1, 2) / 255 for i in batch["images"].unbind(1))
        seen = [normalised_pixels(i) for i in batch["jittered"].unbind(1)]
        disparities = network(seen[1].contiguous(memory_format=torch.channels_last))
        with fabric.autocast():
            motion = pose(torch.cat(seen[:2]), torch.cat(seen[1:]))
        from_before, to_after = motion_matrix(motion).chunk(2)
        motions = (inverse(from_before), to_after)
        ratio = focal_ratio(K, focal_px)
        still = torch.cat([photometric_error(i, here) for i in (before, after)], 1)
        if not settings.automask:
            still = torch.full_like(still, torch.inf)

        loss = here.new_zeros(())
        for s, disparity in enumerate(disparities):
            whole = F.interpolate(disparity, here.shape[2:], mode="bilinear", align_corners=False)
            depth = depth_of(whole) * ratio
            warped = [warp(i, depth, T, K) for i, T in zip((before, after), motions)]
            errors = torch.cat([photometric_error(i, here) for i in warped], 1)
            colours = F.interpolate(here, disparity.shape[2:], mode="area")
            smooth = settings.smoothness / 2**s * smoothness(disparity, colours)
            loss = loss + least_error(errors, still)[0].mean() + smooth
        return loss / len(disparities)

    return of


def size_for(settings: VideoSettings, camera: Camera) -> tuple[int, int]:
    """The size of the settings, or that of about `pixels` and the shape of this camera's image."""
    if all(settings.size):
        return settings.size
    return network_size(camera.width, camera.height, settings.pixels, VideoNet.multiple)


def load(settings: VideoSettings, progress: bool = True) -> list[Clip]:
    """All sources in memory, no larger than the smallest window needs.

    Raises:
        ConfigError, DatasetError: when one cannot be used.
    """

    def cover(camera: Camera) -> tuple[float, float]:
        width, height = size_for(settings, camera)
        return width / settings.smallest_crop, height / settings.smallest_crop

    return load_clips(settings.sources, cover, progress)


def train(settings: VideoSettings, out: Path, clips: list[Clip] | None = None) -> Path:
    """Train depth and pose; returns the path of the depth network's checkpoint.

    Args:
        clips: what `load` gave for these settings, for several trainings.

    Raises:
        ConfigError, DatasetError: on settings or files that cannot be used.
    """
    loop = settings.loop
    fabric = make_fabric(loop)
    network = make_network(settings.network)
    if not isinstance(network, VideoNet):
        known = [n for n, made in NETWORKS.items() if getattr(made.make, "func", None) is VideoNet]
        raise ConfigError(f"network: expected one of {', '.join(known)}, got {settings.network}")
    if settings.initial:
        load_encoder(network, settings.network, settings.initial)
        network.scale.fill_(1)  # that of other weights is worth nothing
    if clips is None:
        clips = load(settings, progress=fabric.global_rank == 0)
    _, camera = clips[0].middles[0]
    width, height = size_for(settings, camera)
    # What a window shows is scaled by this; a robot sees the whole image at the same scale.
    scale = max(width / camera.width, height / camera.height)
    focal_px, pixels = camera.focal_px * scale, camera.width * camera.height * scale**2
    triplets = Triplets(
        clips,
        [source.weight for source in settings.sources],
        (width, height),
        settings.smallest_crop,
        loop.batch,
        loop.seed,
        fabric.global_rank,
        fabric.world_size,
    )
    pose = PoseNet(settings.pose_backbone)
    start_pose(pose, settings.pose_backbone, network, settings.network, settings.initial)
    optimizer = torch.optim.Adam([{"params": pose.parameters(), "peak": settings.pose_lr}])
    wrapped, wrapped_optimizer = fabric.setup(pose, optimizer)
    spec = {"name": settings.network, "focal_px": focal_px, "pixels": round(pixels)}
    return fit(
        fabric,
        Checkpoint(settings.network, network, spec, as_dict(settings)),
        lambda first, last: loader(triplets, first, last, loop.workers),
        video_loss(settings, wrapped, focal_px, fabric),
        loop,
        out,
        validation(settings.held_out),
        Companion(pose, wrapped_optimizer),
    )


SETTINGS = VideoSettings
