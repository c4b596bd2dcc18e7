"""What a lifelong model keeps of its domains: their means, and some labelled frames beside it.

    model.safetensors
    replay/NAME/00/{rgb,depth,intrinsics.json}      an RGB-D folder for every camera of the domain

So a robot can learn its next place without the recordings of the last one, and the folder can be
looked at, replaced or measured on like any data set.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from mde_ros import checkpoint as checkpoints
from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, setting
from mde_ros.geometry import network_size
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.networks.lifelong import HEIRS, LifelongNet
from mde_ros.networks.mff import FastNet, LightNet
from mde_ros.runtime import ModelSpec, find_model
from mde_ros.training.batches import Source, Stored, load_sources
from mde_ros.training.initial import load_encoder
from mde_ros.training.loop import console

PROBED = 100  # frames of a domain whose distances are looked at
SHRUNK = 0.01  # of the mean variance, that every direction is granted: frames are few


@dataclass(frozen=True)
class Known(Source):
    """Frames of a domain that the model knows already."""

    domain: str = setting("", "the domain they are of")


def known_model(to: str, student_domain: str) -> tuple[Checkpoint, Path]:
    """A lifelong model, or a student as one whose only domain has the given name; and its file.

    Raises:
        ConfigError: when it is neither. ModelError, CheckpointError: when it cannot be read.
    """
    path = find_model(os.path.expandvars(to), ".safetensors")
    model = checkpoints.load(path)
    if model.network_name in HEIRS:
        heir = cast(LifelongNet, make_network(HEIRS[model.network_name]))
        heir.inherit(cast(LightNet | FastNet, model.network))
        spec = {**model.spec, "domains": [student_domain]}
        model = Checkpoint(HEIRS[model.network_name], heir, spec)
    if not isinstance(model.network, LifelongNet) or "focal_px" not in model.spec:
        raise ConfigError(
            f"to: expected a lifelong model or a student ({', '.join(HEIRS)}) with a canonical"
            f" focal length, got {model.network_name}"
        )
    return model, path


def fresh_model(network: str, initial: str, spec: dict[str, Any]) -> Checkpoint:
    """A lifelong network without a domain; its first head is for the first one to come.

    Args:
        initial: ImageNet weights of the encoder, or a student; may be empty.

    Raises:
        ConfigError: when there is no such lifelong network, or the weights do not fit.
    """
    if network not in HEIRS.values():
        raise ConfigError(f"network: expected one of {', '.join(HEIRS.values())}, got {network!r}")
    made = make_network(network)
    if initial:
        load_encoder(made, network, initial)
    return Checkpoint(network, made, spec)


def replay_folder(model: Path, domain: str) -> Path:
    """Where the frames of a domain lie, beside the model."""
    return model.parent / "replay" / domain


def recall(
    domains: list[str], known: tuple[Known, ...], model: Path | None, progress: bool
) -> dict[str, list[Stored]]:
    """All frames with depth of every domain: those in `known`, else those beside the model.

    A domain that has neither has none.

    Raises:
        ConfigError: when `known` names another domain. DatasetError: when one cannot be read.
    """
    for source in known:
        if source.domain not in domains:
            raise ConfigError(
                f"known: expected domains of the model ({', '.join(domains) or 'it has none'}),"
                f" got {source.domain!r}"
            )
    memory = {}
    for domain in domains:
        sources: tuple[Source, ...] = tuple(k for k in known if k.domain == domain)
        if not sources and model and replay_folder(model, domain).is_dir():
            sources = (Source(str(replay_folder(model, domain))),)
        frames = chain(*load_sources(sources, None, progress))
        memory[domain] = [frame for frame in frames if frame.truth_mm.any()]
    return memory


def choose(frames: list[Stored], number: int, seed: int) -> list[Stored]:
    """At most `number` of the frames, drawn by the seed, in their order."""
    if len(frames) <= number:
        return frames
    drawn = np.random.default_rng(seed).choice(len(frames), number, replace=False)
    return [frames[i] for i in sorted(drawn)]


def write_replay(folder: Path, frames: list[Stored]) -> None:
    """Write frames as RGB-D folders, complete or not at all; what stood there is replaced."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        for i, of_one_camera in enumerate(by_camera(frames)):
            _write_rgbd(partial / f"{i:02}", of_one_camera)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def by_camera(frames: list[Stored]) -> list[list[Stored]]:
    """Frames that share a camera, in the order in which the cameras come."""
    groups: list[list[Stored]] = []
    for frame in frames:
        same = [group for group in groups if group[0].camera.same_as(frame.camera)]
        if same:
            same[0].append(frame)
        else:
            groups.append([frame])
    return groups


def _write_rgbd(folder: Path, frames: list[Stored]) -> None:
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for i, frame in enumerate(frames):
        image = np.ascontiguousarray(frame.image[..., ::-1])
        _write(folder / f"rgb/{i:04}.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 95)
        _write(folder / f"depth/{i:04}.png", frame.truth_mm, cv2.IMWRITE_PNG_COMPRESSION, 3)
    c = frames[0].camera
    K = {"fx": c.K[0, 0], "fy": c.K[1, 1], "cx": c.K[0, 2], "cy": c.K[1, 2]}
    intrinsics = {**K, "width": c.width, "height": c.height, "D": c.D.tolist()}
    (folder / "intrinsics.json").write_text(json.dumps(intrinsics, indent=1) + "\n")


def _write(path: Path, image: np.ndarray, *options: int) -> None:
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f"{path}: cannot be written")


@torch.no_grad()
def descriptions(network: LifelongNet, frames: list[Stored], pixels: int) -> Iterator[Tensor]:
    """That of each frame, (1, c, h, w), seen at the size the pipeline would show it: `pixels`."""
    network.eval()
    hidden = not console.is_terminal
    for frame in track(frames, "features", console=console, transient=True, disable=hidden):
        size = network_size(frame.camera.width, frame.camera.height, pixels)
        image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        x = normalised_pixels(torch.from_numpy(image)[None].to(network.elsewhere.device))
        yield network.description(network.features(x).float())


def mean_description(network: LifelongNet, frames: list[Stored], pixels: int) -> Tensor:
    """Over frames, at least one: (c, h, w) of the size of the first frame's."""
    return described(network, frames, pixels)[0]


def described(network: LifelongNet, frames: list[Stored], pixels: int) -> tuple[Tensor, Tensor]:
    """mean_description; and what each frame's is on average over the image, (n, c)."""
    total: Tensor | None = None
    averages = []
    for each in descriptions(network, frames, pixels):
        total = torch.zeros_like(each) if total is None else total
        total += F.interpolate(each, total.shape[2:], mode="bilinear", align_corners=True)
        averages.append(each.mean((2, 3)))
    assert total is not None
    return total[0] / len(frames), torch.cat(averages)


def whitening_of(averages: list[Tensor]) -> Tensor:
    """(c, c), after which frames of a domain are as far apart in every direction.

    Args:
        averages: (n, c) of the frames of each domain.
    """
    away = torch.cat([each - each.mean(0) for each in averages])
    covariance = away.T @ away / len(away)
    least = SHRUNK * covariance.diagonal().mean() + 1e-6
    root = torch.linalg.cholesky(covariance + least * torch.eye(len(covariance)).to(covariance))
    return torch.linalg.inv(root).T.contiguous()


def remember(model: Path, memory: dict[str, list[Stored]], copied: dict[str, Path]) -> None:
    """Put the means of the features as they are now into a model, and the frames beside it.

    A domain without frames gets the distance below which the nearest mean is for 95 % of all those.

    Args:
        memory: frames of the domains, in the model's order.
        copied: folders that are copied instead: JPEG would lose a little each time.
    """
    loaded = checkpoints.load(model)
    network, pixels = cast(LifelongNet, loaded.network), pixels_of(loaded)
    seen = {i: frames for i, frames in enumerate(memory.values()) if frames}
    averages = []
    for i, frames in seen.items():
        mean, average = described(network, frames, pixels)
        network.set_mean(i, mean)
        averages.append(average)
    if network.whitening is not None:
        network.whitening.copy_(whitening_of(averages))
    if len(seen) < len(memory):
        few = list(chain(*(choose(frames, PROBED, 0) for frames in seen.values())))
        near = (network.distances(each) for each in descriptions(network, few, pixels))
        own = [distances[:, list(seen)].min() for distances in near]
        network.elsewhere[network.elsewhere > 0] = torch.stack(own).quantile(0.95)
    checkpoints.save(model, loaded)
    for domain, frames in memory.items():
        folder = replay_folder(model, domain)
        if domain in copied and copied[domain].resolve() != folder.resolve():
            shutil.copytree(copied[domain], folder, dirs_exist_ok=True)
        elif frames and domain not in copied:
            write_replay(folder, frames)


def sizes_of(memory: dict[str, list[Stored]], pixels: int) -> tuple[tuple[int, int], ...]:
    """The network's input sizes for the cameras of the domains, as the pipeline takes them."""
    cameras = (frames[0].camera for frames in memory.values() if frames)
    return tuple(dict.fromkeys(network_size(c.width, c.height, pixels) for c in cameras))


def pixels_of(model: Checkpoint) -> int:
    """The area of the network's input, in pixels."""
    return model.spec.get("pixels", ModelSpec.pixels)
