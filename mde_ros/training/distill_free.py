"""Distillation without the teacher's data, from simulated images (METHODS 6).

Hu et al., arXiv 2208.12464, KBS 2024. A transformation G makes mixed simulated images look to the
teacher like what it was trained on, and the student learns from both in turn with it:

    G:        L_BN(G(x̃)), the distance from the statistics of the teacher's batch norms
    student:  ℓ1(teacher(x'), student(x')) + ℓ1(teacher(G(x̃)), student(G(x̃)))

x' is a simulated image, x̃ one into which random objects of another are pasted. What it is compared
with: x' alone (KD-OOD); images of a generator that looks for where the student errs (DFAD, Fang et
al. 2019); random noise. Weights, rates and layers are ours [OURS]; so is that G's step comes after
the student's, which starts with G as the identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from mde_ros import checkpoint as checkpoints
from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.networks.synthesis import NOISE, Generator, Transformation
from mde_ros.runtime import find_model
from mde_ros.training.batches import Source, loader
from mde_ros.training.initial import check_depth_network, check_student, load_encoder
from mde_ros.training.loop import Companion, LoopSettings, fit, make_fabric
from mde_ros.training.mixing import Noise, Pictures, load_pictures
from mde_ros.training.statistics import batch_norms, statistics_loss
from mde_ros.training.validation import HeldOut, validation

METHODS = ("mixed", "simulated", "generator", "noise")  # ours, KD-OOD, DFAD, random noise
Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class DistillFreeSettings:
    """A teacher, its student, and the images that stand for the teacher's data."""

    network: str = setting("light_mobilenet_v2", "the student, see `mde networks`")
    initial: str = setting(
        "",
        "weights to start from: a shipped model, a .safetensors checkpoint, a .pt file of ImageNet"
        " weights of the encoder, or imagenet (timm fetches them)",
    )
    teacher: str = setting("", "a .safetensors checkpoint or a shipped model")
    method: str = setting("mixed", "what the teacher is asked about", choices=METHODS)
    sources: tuple[Source, ...] = setting((), "simulated clips; for mixed with their objects")
    held_out: tuple[HeldOut, ...] = setting((), "data sets to validate on")
    size: tuple[int, int] = setting((304, 228), "width and height of the images in pixels")
    smallest_crop: float = setting(0.5, "smallest random window, of the image", low=0.05, high=1.0)
    companion_lr: float = setting(1e-4, "learning rate of G, or of the generator", low=0.0)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=20_000, batch=8, lr=5e-4, encoder_lr=1e-4, warmup=500
        )
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.teacher:
            raise ConfigError("teacher: expected a checkpoint or a shipped model, got none")
        if self.method in ("mixed", "simulated") and not self.sources:
            raise ConfigError(
                f"sources: expected simulated images for method={self.method}, got none"
            )


def open_teacher(model: str, method: str) -> Checkpoint:
    """The teacher's network, frozen.

    Raises:
        ConfigError: when it is no checkpoint, or has no batch norms for the method.
        ModelError, CheckpointError: when it cannot be read.
    """
    if model.startswith("hf:") or model.endswith(".onnx"):
        raise ConfigError(
            f"teacher: expected a .safetensors checkpoint, got {model}; give the checkpoint that it"
            " was exported from, or distil from its answers to images: mde train distill"
        )
    teacher = checkpoints.load(find_model(os.path.expandvars(model), ".safetensors"))
    if method == "mixed" and not batch_norms(teacher.network):
        raise ConfigError(
            f"teacher: expected batch norms, whose statistics the images are fitted to, got none in"
            f" {teacher.network_name}; take method=simulated"
        )
    check_depth_network(teacher.network, teacher.spec, f"teacher: {teacher.network_name}")
    teacher.network.requires_grad_(False)
    return teacher


def distance(said: Tensor, wanted: Tensor) -> Tensor:
    """ℓ1 at the teacher's size."""
    said = F.interpolate(said.float(), wanted.shape[2:], mode="bilinear", align_corners=False)
    return (said - wanted).abs().mean()


def free_loss(method: str, teacher: nn.Module, companion: nn.Module | None, fabric: Fabric) -> Loss:
    """The lines in the head of this file; that of the companion leaves its gradients there."""

    def ask(x: Tensor) -> Tensor:
        with fabric.autocast():
            return teacher(x).float()

    def learn(network: nn.Module, x: Tensor) -> Tensor:
        x = x.detach().contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = ask(x)
        return distance(network(x), wanted)

    def mixed(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        made = companion(normalised_pixels(batch["mixed"]))  # type: ignore[misc]
        with fabric.autocast():
            unlike = statistics_loss(teacher, made, fabric.all_gather)
        fabric.backward(unlike)
        # Half the images are plain ones: the mean over all is half the sum of the two terms.
        return 2 * learn(network, torch.cat([normalised_pixels(batch["image"]), made]))

    def adversarial(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        made = companion(batch["noise"])  # type: ignore[misc]
        fabric.backward(-distance(network(made), ask(made)))
        return learn(network, made)

    return {
        "mixed": mixed,
        "simulated": lambda network, batch: learn(network, normalised_pixels(batch["image"])),
        "generator": adversarial,
        "noise": lambda network, batch: learn(network, batch["noise"]),
    }[method]


def train(settings: DistillFreeSettings, out: Path) -> Path:
    """Train the student; returns the checkpoint's path.

    Raises:
        ConfigError, NetworkError, DatasetError, ModelError, CheckpointError: on settings or files
            that cannot be used.
    """
    loop, method, (width, height) = settings.loop, settings.method, settings.size
    check_student(settings.network)
    fabric = make_fabric(loop)
    model = open_teacher(settings.teacher, method)
    teacher = model.network.to(fabric.device)
    student = make_network(settings.network)
    if settings.initial:
        load_encoder(student, settings.network, settings.initial)

    share = (loop.batch, loop.seed, fabric.global_rank, fabric.world_size)
    batches: Pictures | Noise
    if method in ("mixed", "simulated"):
        pictures = load_pictures(settings.sources, method == "mixed", fabric.global_rank == 0)
        weights = [source.weight for source in settings.sources]
        window = (settings.size, settings.smallest_crop)
        batches = Pictures(pictures, weights, *window, method == "mixed", *share)
    elif method == "generator":
        channels, side = NOISE
        batches = Noise((channels, -(-height // side), -(-width // side)), *share)
    else:
        batches = Noise((3, height, width), *share)

    beside, wrapped = None, None
    if method in ("mixed", "generator"):
        network = Transformation() if method == "mixed" else Generator()
        optimizer = torch.optim.Adam(network.parameters(), settings.companion_lr)
        wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
        beside = Companion(network, wrapped_optimizer)

    # Both see the same images, so the student's canonical depth is the teacher's.
    spec = {"name": settings.network, "pixels": width * height}
    spec |= {k: model.spec[k] for k in ("focal_px",) if k in model.spec}
    return fit(
        fabric,
        Checkpoint(settings.network, student, spec, as_dict(settings)),
        lambda first, last: loader(batches, first, last, loop.workers),
        free_loss(method, teacher, wrapped, fabric),
        loop,
        out,
        validation(settings.held_out),
        beside,
    )


SETTINGS = DistillFreeSettings
