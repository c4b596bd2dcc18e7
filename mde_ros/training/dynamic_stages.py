"""The networks of dynamic's stages and how each is trained; what they learn is said elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint, load, read_tensors
from mde_ros.config import ConfigError, as_dict
from mde_ros.networks import make_network
from mde_ros.networks.motion import LightScaleNet, MotionNet, ScaleNet
from mde_ros.networks.video import PoseNet, VideoNet
from mde_ros.training import dynamic_mining as mining
from mde_ros.training.batches import loader
from mde_ros.training.dynamic_frames import Frames, Maps, TripletBatches, read_npz
from mde_ros.training.dynamic_objects import dynamic_loss, object_loss, scale_loss
from mde_ros.training.dynamic_scene import Loss, scene_loss
from mde_ros.training.dynamic_settings import DynamicSettings
from mde_ros.training.initial import load_encoder, start_pose
from mde_ros.training.loop import Companion, LoopSettings, fit
from mde_ros.training.state import STATE
from mde_ros.training.validation import validation

MODEL = "model.safetensors"
Entry = tuple[int, int]  # a triplet, and the number of an object in it


@dataclass(frozen=True)
class Training:
    """What all stages share.

    Attributes:
        focal_px: canonical focal length.
    """

    settings: DynamicSettings
    fabric: Fabric
    frames: Frames
    focal_px: float

    def scene(self, start: Path | None = None) -> mining.Scene:
        """The networks of a scene: fresh ones, or those that a training left in a folder."""
        s = self.settings
        pose, motion = PoseNet(s.pose_backbone), MotionNet(s.light)
        depth = make_network(s.network) if start is None else load(start / MODEL).network
        if not isinstance(depth, VideoNet):
            raise ConfigError(f"network: expected one for video, got {s.network}")
        if start is None:
            if s.initial:
                load_encoder(depth, s.network, s.initial)
            start_pose(pose, s.pose_backbone, depth, s.network, s.initial)
        else:
            load_part(start / STATE, "companion.pose", pose)
            load_part(start / STATE, "companion.motion", motion)
        depth.scale.fill_(1)
        for network in (depth, pose, motion):
            network.eval().to(self.fabric.device)
        return mining.Scene(depth, pose, motion, self.focal_px)

    def fit(
        self, name: str, network: nn.Module, batches: TripletBatches, loss: Loss,
        loop: LoopSettings, out: Path, beside: mining.Scene | None = None, validate: bool = False,
    ) -> Path:  # fmt: skip
        """Train a network, and pose and motion of `beside` with it; returns the folder."""
        s, companion = self.settings, None
        skip = ("until", "rounds", "held_out", "scene", "shapes", "scales", "final")
        kept = {k: v for k, v in as_dict(s).items() if k not in skip} | {"loop": as_dict(loop)}
        spec = {"name": name, "focal_px": self.focal_px, "pixels": s.size[0] * s.size[1]}
        if beside:
            nets = nn.ModuleDict({"pose": beside.pose, "motion": beside.motion}).train()
            groups: list[list[nn.Parameter]] = [[], []]
            for key, parameter in nets.named_parameters():
                groups[key.startswith("pose.encoder.")].append(parameter)
            peaks = zip(groups, (loop.lr, loop.encoder_lr))
            adam = torch.optim.Adam([{"params": params, "peak": peak} for params, peak in peaks])
            companion = Companion(nets, self.fabric.setup_optimizers(adam))  # type: ignore[arg-type]
        fit(
            self.fabric,
            Checkpoint(name, network, spec, kept),
            lambda first, last: loader(batches, first, last, loop.workers),
            loss,
            loop,
            out,
            validation(s.held_out) if validate else None,
            companion,
        )
        return out

    def train_scene(
        self, loop: LoopSettings, out: Path, start: Path | None = None, labels: Path | None = None
    ) -> Path:
        """The first stage; with pseudo labels the last one."""
        s, frames, nets = self.settings, self.frames, self.scene(start)

        def wanted(index: int) -> dict[str, np.ndarray]:
            shape = frames.size[::-1]
            label = {"depth": np.ones(shape), "moving": np.zeros(shape, bool)}
            if labels and (file := mining.file_of(labels, frames.names[index])).is_file():
                label = read_npz(file)
            return {"label": label["depth"].astype(np.float32), "moving": label["moving"]}

        def more(disparities: list[Tensor], batch: dict[str, Tensor]) -> Tensor:
            return s.dynamic_weight * dynamic_loss(disparities, batch["label"], batch["moving"])

        weights = replace(s.scene_loss, settle=0, motion_alone=0) if labels else s.scene_loss
        term = more if labels else None
        loss = scene_loss(nets.pose, nets.motion, weights, self.focal_px, term)
        everything = [(i, 0) for i in range(len(frames))]
        batches = self.batches(everything, loop, (lambda i, _: wanted(i)) if labels else None)
        return self.fit(s.network, nets.depth, batches, loss, loop, out, nets, validate=True)

    def train_shapes(self, start: Path, objects: Path, entries: list[Entry], out: Path) -> VideoNet:
        """Depth of objects under their own rigid motion."""
        s, nets = self.settings, self.scene(start)

        def where(index: int, number: int) -> dict[str, np.ndarray]:
            masks = read_npz(mining.file_of(objects, self.frames.names[index]))["masks"][number]
            return {f"mask_{k}": mask for k, mask in zip((-1, 0, 1), masks)}

        loss = object_loss(nets.pose, s.object_smoothness, self.focal_px)
        batches = self.batches(entries, s.shapes, where)
        return self.scene(self.fit(s.network, nets.depth, batches, loss, s.shapes, out, nets)).depth

    def train_scales(
        self, objects: Path, shapes: Path, entries: list[Entry], out: Path
    ) -> nn.Module:
        """The depth scale alignment, on objects that stand still."""
        s = self.settings
        network = LightScaleNet() if s.light else ScaleNet()

        def known(index: int, number: int) -> dict[str, np.ndarray]:
            name = self.frames.names[index]
            found = read_npz(mining.file_of(objects, name))
            shape = mining.shapes_of(found, mining.file_of(shapes, name))[number]
            scene = found["depth"].astype(np.float32)
            return {"shape": shape, "ground": mining.road_depth(found), "scene": scene}

        batches = self.batches(entries, s.scales, known)
        self.fit("scale", network, batches, scale_loss, s.scales, out)
        load_part(out / STATE, "ema", network.eval())
        return network

    def batches(
        self, entries: list[Entry], loop: LoopSettings, maps: Maps | None
    ) -> TripletBatches:
        """Batches of these entries, by the seed of a loop."""
        weights = [source.weight for source in self.settings.sources]
        return TripletBatches(self.frames, entries, weights, loop.batch, loop.seed, maps)

    def entries(self, objects: Path) -> tuple[list[Entry], list[Entry]]:
        """Every object, and those that stand still.

        Raises:
            ConfigError: when none does.
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
