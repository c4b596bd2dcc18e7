"""Supervised training with the three-term loss: Hu et al., WACV 2019 (METHODS 1).

Adam, 1e-4, ×0.1 every 5 of 20 epochs; images prepared as datasets/published.py says;
prediction and truth are compared at the network's half resolution, and where a network predicts
depth at every scale, the losses of all are added up (SARPN; METHODS 6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.datasets.published import TRAINING
from mde_ros.losses import three_term_terms
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.training.batches import Batches, Source, load_sources, loader
from mde_ros.training.initial import check_student, load_encoder
from mde_ros.training.loop import LoopSettings, fit, make_fabric
from mde_ros.training.validation import HeldOut, validation


def paper_schedule() -> LoopSettings:
    """20 epochs of 50,688 images at batch 8, the rate divided by ten every 5 (METHODS 1)."""
    return LoopSettings(
        steps=126_720,
        batch=8,
        lr=1e-4,
        encoder_lr=1e-4,
        weight_decay=1e-4,
        optimizer="adam",
        warmup=0,
        schedule="step",
        step_every=31_680,
        clip=0.0,
        ema=0.0,
        precision="32-true",
    )


@dataclass(frozen=True)
class SupervisedSettings:
    """A network, labelled data and the weights of the three terms."""

    network: str = setting("mff_resnet50", "see `mde networks`")
    initial: str = setting(
        "",
        "weights to start from: a shipped model, a .safetensors checkpoint, a .pt file of ImageNet"
        " weights of the encoder, or imagenet (timm fetches them)",
    )
    sources: tuple[Source, ...] = setting((), "labelled data sets")
    held_out: tuple[HeldOut, ...] = setting((), "data sets to validate on")
    preprocessing: str = setting(
        "nyu", "how images are resized, cropped and coloured", choices=tuple(TRAINING)
    )
    size: tuple[int, int] = setting((304, 228), "crop width and height in pixels")
    gradient_weight: float = setting(1.0, "λ, weight of l_grad", low=0.0)
    normal_weight: float = setting(1.0, "μ, weight of l_normal", low=0.0)
    focal_px: float = setting(259.5, "canonical focal length (NYU's 519 px at half size)", low=1.0)
    loop: LoopSettings = field(default_factory=paper_schedule)

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError("sources: expected at least one labelled data set, got none")


def supervised_loss(
    settings: SupervisedSettings,
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """l_depth + λ l_grad + μ l_normal at the size, or sizes, of the network's own output."""

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"]).contiguous(memory_format=torch.channels_last)
        scales = hasattr(network, "every_scale")
        losses = []
        for prediction in network(x, every_scale=True) if scales else [network(x)]:
            truth = F.interpolate(batch["truth"], prediction.shape[2:], mode="nearest")
            depth, gradient, normal = three_term_terms(prediction.float(), truth)
            losses.append(
                depth + settings.gradient_weight * gradient + settings.normal_weight * normal
            )
        return torch.stack(losses).sum()

    return of


def train(settings: SupervisedSettings, out: Path) -> Path:
    """Train the network; returns the checkpoint's path.

    Raises:
        ConfigError, NetworkError, DatasetError: on settings or files that cannot be used.
    """
    loop = settings.loop
    check_student(settings.network)
    fabric = make_fabric(loop)
    stored = load_sources(settings.sources, None, progress=fabric.global_rank == 0)
    weights = [s.weight for s in settings.sources]
    batches = Batches(
        stored,
        weights,
        TRAINING[settings.preprocessing],
        (settings.size,),
        settings.focal_px,
        loop.batch,
        loop.seed,
        fabric.global_rank,
        fabric.world_size,
    )
    network = make_network(settings.network)
    if settings.initial:
        load_encoder(network, settings.network, settings.initial)
    spec = {
        "name": settings.network,
        "focal_px": settings.focal_px,
        "pixels": settings.size[0] * settings.size[1],
    }
    return fit(
        fabric,
        Checkpoint(settings.network, network, spec, as_dict(settings)),
        lambda first, last: loader(batches, first, last, loop.workers),
        supervised_loss(settings),
        loop,
        out,
        validation(settings.held_out),
    )


SETTINGS = SupervisedSettings
