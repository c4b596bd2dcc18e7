"""Distillation into a light student: labelled images X, unlabelled U, a teacher for both.

Hu et al., "Boosting Light-Weight Depth Estimation via Knowledge Distillation", KSEM 2023
(METHODS 5). Its training code is not public; the weights of the terms are ours [OURS]:

    X:  (1 - λ) ℓ(student, truth) + λ ℓ(student, teacher scaled to the truth)
    U:  ℓ(student, teacher)

Of a relative teacher nobody knows scale and shift: on X they are those of the truth, on U they are
left out of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.datasets.transforms import Rng, View, camera_look, crop_resize, flip
from mde_ros.geometry import median_scale
from mde_ros.losses import LOSSES, log_depth, scale_shift_loss
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.training.batches import Batches, Source, Stored, load_sources, loader
from mde_ros.training.initial import check_student, initial_focal_px, load_encoder
from mde_ros.training.loop import LoopSettings, fit, make_fabric
from mde_ros.training.teacher import GIVES, Teacher, make_teacher
from mde_ros.training.validation import HeldOut, validation

# About the same area each, so a step costs the same; robots' cameras come in all of these.
SIZES = ((304, 228), (304, 228), (332, 208), (352, 196), (264, 264))
PIXELS = 304 * 228
FOCAL_PX = 270.0  # canonical, of what begins with no depth network; 59 degrees


@dataclass(frozen=True)
class DistillSettings:
    """A student, its teacher, and what they look at."""

    network: str = setting("fast_mobilenet_v2", "the student, see `mde networks`")
    initial: str = setting(
        "",
        "weights to start from: a shipped model, a .safetensors checkpoint, a .pt file of ImageNet"
        " weights of the encoder, or imagenet (timm fetches them)",
    )
    teacher: str = setting(
        "", "a .onnx or .safetensors file, a shipped model, or hf:NAME for one of Hugging Face"
    )
    teacher_gives: str = setting(
        "auto", "what a Hugging Face model puts out", choices=("auto", *GIVES)
    )
    sources: tuple[Source, ...] = setting((), "labelled and unlabelled data sets")
    held_out: tuple[HeldOut, ...] = setting((), "data sets to validate on")
    loss: str = setting("log_depth", "ℓ", choices=tuple(LOSSES))
    gradient_weight: float = setting(1.0, "weight of log_depth's differences", low=0.0)
    teacher_weight: float = setting(0.2, "λ on labelled images", low=0.0, high=1.0)
    focal_px: float = setting(
        0.0, "canonical focal length at 304x228 pixels, 0: that of the initial weights", low=0.0
    )
    pixels: int = setting(PIXELS, "area of the images that are trained on", low=1024)
    smallest_crop: float = setting(0.5, "smallest random window, of the image", low=0.05, high=1.0)
    loop: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError("sources: expected at least one data set to train on, got none")


def augment(
    settings: DistillSettings, teacher: Teacher | None = None
) -> Callable[[View, Rng, int, int], View]:
    """Random window, mirror, small roll, then what cameras do to colours."""
    relative = teacher is not None and bool(teacher.relative)

    def apply(view: View, rng: Rng, width: int, height: int) -> View:
        if teacher:
            view = teacher.aligned(view)
        degrees = 4.0 if rng.random() < 0.5 else 0.0
        view = crop_resize(view, rng, width, height, settings.smallest_crop, degrees)
        view = flip(view, rng)
        if not relative and (view.truth_m > 0).any() and (view.teacher_m > 0).any():
            scale = np.float32(median_scale(view.teacher_m, view.truth_m))
            view = replace(view, teacher_m=view.teacher_m * scale)
        return replace(view, image=camera_look(view.image, rng))

    return apply


def distill_loss(
    settings: DistillSettings, relative: str = ""
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """The two lines in the head of this file, over a batch that mixes X and U.

    Args:
        relative: as of the Teacher.
    """
    loss, weight = LOSSES[settings.loss], settings.teacher_weight
    if settings.loss == "log_depth":
        loss = partial(log_depth, weight=settings.gradient_weight)
    unlabelled_loss = loss
    if relative:
        unlabelled_loss = partial(
            scale_shift_loss, inverse=relative == "inverse_depth", weight=settings.gradient_weight
        )

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"]).contiguous(memory_format=torch.channels_last)
        prediction = network(x).float()
        # As the pipeline does it: half-pixel centres.
        full = F.interpolate(
            prediction, batch["truth"].shape[2:], mode="bilinear", align_corners=False
        )
        truth, teacher = batch["truth"], batch["teacher"]
        labelled = (truth > 0).flatten(1).any(1)
        total = full.new_zeros(())
        for mask, term, target, share in (
            (labelled, loss, truth, 1 - weight),
            (labelled, loss, teacher, weight),
            (~labelled, unlabelled_loss, teacher, 1.0),
        ):
            if share and mask.any():
                total = total + mask.float().mean() * share * term(full[mask], target[mask])
        return total

    return of


def sizes_of(pixels: int) -> tuple[tuple[int, int], ...]:
    """SIZES at another area, in whole cells of the network."""
    factor = (pixels / PIXELS) ** 0.5
    return tuple((round(w * factor / 4) * 4, round(h * factor / 4) * 4) for w, h in SIZES)


def labelled(
    settings: DistillSettings, teacher: Teacher | None, progress: bool = True
) -> list[list[Stored]]:
    """All images with their depth and what the teacher says of them, read into memory.

    Raises:
        ConfigError: when a relative teacher has no truth to be aligned with. DatasetError: when a
            source cannot be read.
    """
    stored = load_sources(settings.sources, teacher, progress)
    relative = teacher.relative if teacher else ""
    if relative and not any(image.truth_mm.any() for image in chain(*stored)):
        raise ConfigError(
            f"sources: expected measured depth in one of them, for {settings.teacher} gives"
            f" {relative} without scale and the student could not know metres; got none"
        )
    return stored


def train(settings: DistillSettings, out: Path, stored: list[list[Stored]] | None = None) -> Path:
    """Train the student; returns the checkpoint's path.

    Args:
        stored: what `labelled` gave for these sources and this teacher, for several trainings.

    Raises:
        ConfigError, NetworkError, DatasetError, ModelError: on settings or files that cannot be
            used.
    """
    check_student(settings.network)
    fabric = make_fabric(settings.loop)
    teacher = make_teacher(settings.teacher, settings.teacher_gives, affine=True)
    if stored is None:
        stored = labelled(settings, teacher, progress=fabric.global_rank == 0)
    sizes = sizes_of(settings.pixels)
    focal_px = settings.focal_px or initial_focal_px(settings.initial, PIXELS) or FOCAL_PX
    focal_px *= sizes[0][0] / SIZES[0][0]
    batches = Batches(
        stored,
        [s.weight for s in settings.sources],
        augment(settings, teacher),
        sizes,
        focal_px,
        settings.loop.batch,
        settings.loop.seed,
        fabric.global_rank,
        fabric.world_size,
    )
    spec = {
        "name": settings.network,
        "focal_px": focal_px,
        "pixels": sizes[0][0] * sizes[0][1],
    }
    network = make_network(settings.network)
    if settings.initial:
        load_encoder(network, settings.network, settings.initial)
    checkpoint = Checkpoint(settings.network, network, spec, as_dict(settings))
    workers = settings.loop.workers
    return fit(
        fabric,
        checkpoint,
        lambda first, last: loader(batches, first, last, workers),
        distill_loss(settings, teacher.relative if teacher else ""),
        settings.loop,
        out,
        validation(settings.held_out),
    )


SETTINGS = DistillSettings
