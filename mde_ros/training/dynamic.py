"""Mining supervision for dynamic regions: Nguyen et al., CVPR 2024 (METHODS 8).

Depth learnt from video takes a car that keeps the camera's speed for something far away, and one
that comes towards it for something near. Six stages, each with a folder of its own, heal that:

    frames      the video at the network's size
    scene       depth, the camera's motion and what moves, learnt together          (dynamic_scene)
    objects     depth of every frame, its objects, and which of them move            (dynamic_masks)
    shapes      depth of each object up to a factor, from its own rigid motion     (dynamic_objects)
    scales      that factor, learnt from objects that stand still
    labels      the scene's depth with each moving object in its place            (dynamic_mining)
    final       scene, learnt on with 0.1 · L_dyn against the labels

The last five are a round; the next one begins with the networks of the one before. A stage that is
complete is not done again: the same command goes on after Ctrl-C.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint, load, read_tensors
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.networks import make_network
from mde_ros.networks.backbones import BACKBONES
from mde_ros.networks.motion import MotionNet, ScaleNet
from mde_ros.networks.video import PoseNet, VideoNet, two_frames
from mde_ros.training import dynamic_mining as mining
from mde_ros.training.batches import loader
from mde_ros.training.dynamic_frames import (
    Frames,
    Maps,
    TripletBatches,
    marked_objects,
    read_npz,
    write_frames,
)
from mde_ros.training.dynamic_objects import dynamic_loss, object_loss, scale_loss
from mde_ros.training.dynamic_scene import SceneLoss, scene_loss
from mde_ros.training.initial import load_encoder
from mde_ros.training.loop import Companion, LoopSettings, fit, make_fabric
from mde_ros.training.state import STATE, console
from mde_ros.training.triplets import VideoSource
from mde_ros.training.validation import HeldOut, validation

STAGES = ("frames", "scene", "objects", "shapes", "scales", "labels", "final")
Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def schedule(steps: int, lr: float, halve: int = 0, batch: int = 12) -> LoopSettings:
    """As published: Adam, halved once (METHODS 8). An epoch of Cityscapes has 5,811 steps."""
    return LoopSettings(
        steps=steps, batch=batch, lr=lr, encoder_lr=lr, optimizer="adam", weight_decay=0.0,
        warmup=0, schedule="halve", step_every=halve, clip=10.0, ema=0.0,
        precision="32-true",
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
    size: tuple[int, int] = setting((512, 192), "width and height, multiples of 32")
    keep: str = setting("top", "which rows of taller images", choices=("top", "middle", "bottom"))
    objects: str = setting(
        "found",
        "marked: instances of a simulation, or in `masks`; found: by depth and motion",
        choices=("marked", "found"),
    )
    masks: str = setting("", "folder of NAME.png, uint16 instances; empty: the data sets' own")
    things: tuple[str, ...] = setting(
        ("car", "person", "robot", "ball"), "what a simulation's objects are called that count"
    )
    flow_by: str = setting(
        "network",
        "what says how far things moved: the motion net, or optical flow of the images",
        choices=("network", "images"),
    )
    until: str = setting("final", "the last stage to run", choices=STAGES)
    rounds: int = setting(1, "of self-training; 1 as published", low=1)
    scene_loss: SceneLoss = field(default_factory=SceneLoss)
    object_smoothness: float = setting(0.02, "weight inside an object's mask", low=0.0)
    dynamic_weight: float = setting(0.1, "weight of L_dyn", low=0.0)
    scene: LoopSettings = field(default_factory=lambda: schedule(87_165, 2e-4, 58_110))
    shapes: LoopSettings = field(default_factory=lambda: schedule(29_055, 2e-4))
    scales: LoopSettings = field(default_factory=lambda: schedule(40_000, 1e-3, 10_000, 32))
    final: LoopSettings = field(default_factory=lambda: schedule(29_055, 2e-5))

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError("sources: expected a recording to learn from, got none")
        if any(side % 32 for side in self.size):
            raise ConfigError(f"size: expected multiples of 32, got {self.size}")


@dataclass(frozen=True)
class Training:
    """What all stages share."""

    settings: DynamicSettings
    fabric: Fabric
    frames: Frames
    focal_px: float

    def scene(self, start: Path | None = None) -> mining.Scene:
        """The networks of a scene: fresh ones, or those that a stage left behind."""
        s = self.settings
        pose, motion = PoseNet(s.pose_backbone), MotionNet(s.light)
        if start is None:
            depth = make_network(s.network)
            if s.initial:
                load_encoder(depth, s.network, s.initial)
            if s.network.endswith(s.pose_backbone):
                pose.encoder = two_frames(deepcopy(depth.encoder))
        else:
            depth = load(start / "model.safetensors").network
            load_part(start / STATE, "companion.pose", pose)
            load_part(start / STATE, "companion.motion", motion)
        if not isinstance(depth, VideoNet):
            raise ConfigError(f"network: expected one for video, got {s.network}")
        depth.scale.fill_(1)
        for network in (depth, pose, motion):
            network.eval().to(self.fabric.device)
        return mining.Scene(depth, pose, motion, self.focal_px)

    def fit(
        self, name: str, network: nn.Module, batches: TripletBatches, loss: Loss,
        loop: LoopSettings, out: Path, beside: dict[str, nn.Module], validate: bool = False,
    ) -> Path:  # fmt: skip
        """One training of one or more networks; returns its folder."""
        s = self.settings
        skip = ("until", "rounds", "held_out", "scene", "shapes", "scales", "final")
        kept = {k: v for k, v in as_dict(s).items() if k not in skip} | {"loop": as_dict(loop)}
        spec = {"name": name, "focal_px": self.focal_px, "pixels": s.size[0] * s.size[1]}
        companion = None
        if beside:
            nets = nn.ModuleDict(beside).train()
            encoder = [p for n, p in nets.named_parameters() if n.startswith("pose.encoder.")]
            other = [p for n, p in nets.named_parameters() if not n.startswith("pose.encoder.")]
            groups = [
                {"params": encoder, "peak": loop.encoder_lr},
                {"params": other, "peak": loop.lr},
            ]
            adam = self.fabric.setup_optimizers(torch.optim.Adam(groups))
            companion = Companion(nets, adam)  # type: ignore[arg-type]
        fit(
            self.fabric,
            Checkpoint(name, network, spec, kept),
            lambda first, last: loader(batches, first, last, loop.workers),
            loss, loop, out, validation(s.held_out) if validate else None, companion,
        )  # fmt: skip
        return out

    def train_scene(
        self, loop: LoopSettings, out: Path, start: Path | None = None, maps: Maps | None = None
    ) -> Path:
        """Stage 1; with the maps of pseudo labels the last one."""
        s, nets = self.settings, self.scene(start)

        def more(disparities: list[Tensor], batch: dict[str, Tensor]) -> Tensor:
            return s.dynamic_weight * dynamic_loss(disparities, batch["label"], batch["moving"])

        weights = replace(s.scene_loss, settle=0, motion_alone=0) if maps else s.scene_loss
        term = more if maps else None
        loss = scene_loss(nets.pose, nets.motion, weights, self.focal_px, term)
        everything = list(range(len(self.frames)))
        batches = TripletBatches(self.frames, everything, loop.batch, loop.seed, maps)
        beside = {"pose": nets.pose, "motion": nets.motion}
        return self.fit(s.network, nets.depth, batches, loss, loop, out, beside, validate=True)

    def round(self, start: Path, out: Path) -> Path:
        """Objects, shapes, scales, labels, final; returns the folder of the last."""
        s, frames, until = self.settings, self.frames, STAGES.index(self.settings.until)
        objects, shapes, labels = (out / name for name in ("objects", "shapes", "labels"))
        scene, marked = self.scene(start), None
        if s.objects == "marked":
            folder = Path(os.path.expandvars(s.masks)) if s.masks else None
            marked = marked_objects(frames, s.sources, s.keep, folder, s.things)
        mining.mine_objects(frames, scene, marked, s.flow_by, objects)
        every, still = self.entries(objects)
        console.print(f"{len(every)} objects in {len(frames)} frames, {len(still)} stand still")
        if until < STAGES.index("shapes"):
            return start

        def where(entry: int) -> dict[str, np.ndarray]:
            index, number = every[entry]
            masks = read_npz(mining.file_of(objects, frames.names[index]))["masks"][number]
            return {f"mask_{k}": mask for k, mask in zip((-1, 0, 1), masks)}

        loop, chosen = s.shapes, [index for index, _ in every]
        batches = TripletBatches(frames, chosen, loop.batch, loop.seed, where)
        loss = object_loss(scene.pose, s.object_smoothness, self.focal_px)
        beside: dict[str, nn.Module] = {"pose": scene.pose, "motion": scene.motion}
        self.fit(s.network, scene.depth, batches, loss, loop, out / "shape-net", beside)
        mining.mine_shapes(frames, self.scene(out / "shape-net").depth, objects, shapes)
        if until < STAGES.index("scales"):
            return start

        def known(entry: int) -> dict[str, np.ndarray]:
            index, number = still[entry]
            found = read_npz(mining.file_of(objects, frames.names[index]))
            shape = mining.shapes_of(found, mining.file_of(shapes, frames.names[index]))[number]
            scene_m = found["depth"].astype(np.float32)
            return {"shape": shape, "ground": mining.road_depth(found), "scene": scene_m}

        loop, chosen, network = s.scales, [index for index, _ in still], ScaleNet(s.light)
        batches = TripletBatches(frames, chosen, loop.batch, loop.seed, known)
        self.fit("scale", network, batches, scale_loss, loop, out / "scale-net", {})
        load_part(out / "scale-net" / STATE, "ema", self.fabric.to_device(network.eval()))
        if until < STAGES.index("labels"):
            return start
        mining.mine_labels(frames, network, objects, shapes, labels)
        mining.picture(out / "labels.jpg", frames, objects, labels)
        if until < STAGES.index("final"):
            return start

        def wanted(index: int) -> dict[str, np.ndarray]:
            file = mining.file_of(labels, frames.names[index])
            shape = frames.size[::-1]
            nothing = {"depth": np.ones(shape), "moving": np.zeros(shape, bool)}
            label = read_npz(file) if file.is_file() else nothing
            return {"label": label["depth"].astype(np.float32), "moving": label["moving"]}

        return self.train_scene(s.final, out / "final", start, wanted)

    def entries(self, objects: Path) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(triplet, object) of every object, and of those that stand still.

        Raises:
            ConfigError: when there are none.
        """
        every, still = [], []
        for index, name in enumerate(self.frames.names):
            for number, moves in enumerate(read_npz(mining.file_of(objects, name))["dynamic"]):
                every.append((index, number))
                if not moves:
                    still.append((index, number))
        if not still:
            raise ConfigError(
                f"objects: expected some that stand still, to learn scales from, got {len(every)}"
                " that all move"
            )
        return every, still


def load_part(path: Path, name: str, network: nn.Module) -> None:
    """Weights of one part of a training's state."""
    tensors, _ = read_tensors(path)
    own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
    network.load_state_dict(own)


def train(settings: DynamicSettings, out: Path) -> Path:
    """All stages up to `until`; returns the checkpoint of the last depth network.

    Raises:
        ConfigError, DatasetError: on settings or files that cannot be used.
    """
    fabric = make_fabric(settings.scene)
    if fabric.world_size > 1:
        raise ConfigError(f"dynamic: expected one process, got {fabric.world_size}")
    frames = write_frames(out / "frames", settings.sources, settings.size, settings.keep)
    if settings.until == "frames":
        return out / "frames"
    K = frames.K[0].astype(float)
    training = Training(settings, fabric, frames, float(np.sqrt(K[0, 0] * K[1, 1])))
    folder = training.train_scene(settings.scene, out / "scene")
    for number in range(settings.rounds if settings.until != "scene" else 0):
        folder = training.round(folder, out / f"round-{number + 1}")
    return folder / "model.safetensors"


SETTINGS = DynamicSettings
