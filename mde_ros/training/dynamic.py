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
from pathlib import Path

import numpy as np

from mde_ros.config import ConfigError
from mde_ros.evaluation.results import write_atomically
from mde_ros.runtime import sha256_of
from mde_ros.training import dynamic_mining as mining
from mde_ros.training.dynamic_frames import marked_objects, write_frames
from mde_ros.training.dynamic_settings import STAGES, DynamicSettings
from mde_ros.training.dynamic_stages import MODEL, Training
from mde_ros.training.loop import make_fabric
from mde_ros.training.state import console

SETTINGS = DynamicSettings


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
    focal_px = float(np.sqrt(frames.K[0, 0, 0] * frames.K[0, 1, 1]))
    training = Training(settings, fabric, frames, focal_px)
    folder = training.train_scene(settings.scene, out / "scene")
    for number in range(settings.rounds if settings.until != "scene" else 0):
        folder = one_round(training, folder, out / f"round-{number + 1}")
    return folder / MODEL


def one_round(training: Training, start: Path, out: Path) -> Path:
    """Objects, shapes, scales, labels, final; returns the folder of the last depth network.

    Args:
        start: folder of the scene's networks.

    Raises:
        ConfigError: when the round was begun with other ones.
    """
    begun, sha256 = out / "begun_with.txt", sha256_of(start / MODEL)
    if begun.is_file() and begun.read_text(encoding="utf-8") != sha256:
        raise ConfigError(
            f"{out}: expected what was mined with {start / MODEL}, got what was mined with another"
            " state of it; delete the folder to mine anew"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(begun, sha256.encode())
    s, frames, until = training.settings, training.frames, STAGES.index(training.settings.until)
    objects, shapes, labels = (out / name for name in ("objects", "shapes", "labels"))
    marked = None
    if s.objects == "marked":
        folder = Path(os.path.expandvars(s.masks)) if s.masks else None
        marked = marked_objects(frames, s.sources, s.keep, folder, s.things)
    mining.mine_objects(frames, training.scene(start), marked, s.flow_by, s.least_share, objects)
    every, still = training.entries(objects)
    console.print(f"{len(every)} objects in {len(frames)} frames, {len(still)} stand still")
    if until >= STAGES.index("shapes"):
        network = training.train_shapes(start, objects, every, out / "shape-net")
        mining.mine_shapes(frames, network, objects, shapes)
    if until >= STAGES.index("scales"):
        scale = training.train_scales(objects, shapes, still, out / "scale-net")
    if until >= STAGES.index("labels"):
        mining.mine_labels(frames, scale, objects, shapes, labels)
    mining.picture(out / "labels.jpg", frames, objects, labels)
    if until < STAGES.index("final"):
        return start
    return training.train_scene(s.final, out / "final", start, labels)
