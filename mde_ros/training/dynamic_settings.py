"""Settings of dynamic: videos, what their objects are told by, and how long each stage learns."""

from __future__ import annotations

from dataclasses import dataclass, field

from mde_ros.config import ConfigError, check, setting
from mde_ros.networks.backbones import BACKBONES
from mde_ros.training.dynamic_scene import SceneLoss
from mde_ros.training.loop import LoopSettings
from mde_ros.training.triplets import VideoSource
from mde_ros.training.validation import HeldOut

THINGS = (
    *("car", "person", "robot", "ball"),
    *("chair", "office chair", "sofa", "table", "desk", "cabinet", "drawers", "appliance"),
    *("carton", "bin", "plant", "stand"),
)
STAGES = ("frames", "scene", "objects", "shapes", "scales", "labels", "final")


def schedule(steps: int, lr: float, encoder_lr: float, batch: int = 8) -> LoopSettings:
    """Ours for a recording of minutes; the published one is config/train/dynamic-published.yaml."""
    return LoopSettings(
        steps=steps, batch=batch, lr=lr, encoder_lr=encoder_lr, optimizer="adam",
        weight_decay=0.0, warmup=10, clip=10.0, ema=0.0, precision="32-true",
    )  # fmt: skip


@dataclass(frozen=True)
class DynamicSettings:
    """Videos, what their objects are told by, and how long each stage learns."""

    network: str = setting("video_mobilenet_v2", "one for video, see `mde networks`")
    initial: str = setting("default", "weights to start from, as in `mde train video`")
    pose_backbone: str = setting(
        "mobilenet_v2", "encoder of the pose net", choices=tuple(BACKBONES)
    )
    light: bool = setting(True, "a motion and a scale network for CPUs, instead of the published")
    sources: tuple[VideoSource, ...] = setting((), "recordings of a moving camera")
    held_out: tuple[HeldOut, ...] = setting((), "data sets with depth to validate on")
    size: tuple[int, int] = setting((320, 192), "width and height, multiples of 32")
    keep: str = setting(
        "middle", "which rows of taller images", choices=("top", "middle", "bottom")
    )
    objects: str = setting(
        "found",
        "marked: instances of a simulation, or in `masks`; found: by depth and motion",
        choices=("marked", "found"),
    )
    masks: str = setting("", "folder of NAME.png, uint16 instances; empty: the data sets' own")
    things: tuple[str, ...] = setting(
        THINGS, "what a simulation's objects are called that count: what stands on the ground"
    )
    flow_by: str = setting(
        "network",
        "what says how far things moved: the motion net, or optical flow of the images",
        choices=("network", "images"),
    )
    least_share: float = setting(
        0.4,
        "share of the whole flow that what moved must be, for depth is rough; 0 as published",
        low=0.0,
        high=1.0,
    )
    until: str = setting("final", "the last stage to run", choices=STAGES)
    rounds: int = setting(1, "of self-training; 1 as published", low=1)
    scene_loss: SceneLoss = field(default_factory=SceneLoss)
    object_smoothness: float = setting(0.02, "weight inside an object's mask", low=0.0)
    dynamic_weight: float = setting(0.1, "weight of L_dyn", low=0.0)
    scene: LoopSettings = field(default_factory=lambda: schedule(4000, 1e-3, 3e-4))
    shapes: LoopSettings = field(default_factory=lambda: schedule(1000, 2e-4, 1e-4))
    scales: LoopSettings = field(default_factory=lambda: schedule(2000, 5e-3, 5e-3, 16))
    final: LoopSettings = field(default_factory=lambda: schedule(1000, 2e-4, 1e-4))

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError("sources: expected a recording to learn from, got none")
        if any(side % 32 for side in self.size):
            raise ConfigError(f"size: expected multiples of 32, got {self.size}")
