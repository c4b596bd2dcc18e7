"""What the recipes for masks share: the depth network N that stays as it is, images, the spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.config import ConfigError, PipelineSettings, check, setting
from mde_ros.datasets.transforms import Rng, View, camera_look, crop_resize, flip
from mde_ros.frame import Frame
from mde_ros.networks import MASKS
from mde_ros.networks.folding import folded
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import ModelSpec, sha256_of
from mde_ros.training.batches import Batches, Source, load_sources
from mde_ros.training.initial import initial_path
from mde_ros.training.loop import LoopSettings
from mde_ros.training.state import console
from mde_ros.training.validation import HeldOut

ASPECTS = (4 / 3, 16 / 9, 1.0)  # of the images trained on, one is drawn per batch
FALSE_ALARMS = 0.01  # of clean frames
LEAST_ALARM = 0.03  # depth that differs by less is no news


def mask_loop() -> LoopSettings:
    """Adam, 1e-4, decay 1e-4, batch 8, as published (METHODS 2, 3); how long, the data say."""
    return LoopSettings(
        batch=8, lr=1e-4, encoder_lr=1e-4, weight_decay=1e-4, optimizer="adam",
        schedule="constant", warmup=0, precision="32-true",
    )  # fmt: skip


@dataclass(frozen=True)
class MaskSettings:
    """A mask network G, the depth network N whose image it covers, and what they look at."""

    network: str = setting("saliency_mobilenet_v2", "G, one that gives a mask (`mde networks`)")
    model: str = setting("default", "N: a shipped model, or a .safetensors checkpoint")
    initial: str = setting(
        "",
        "weights that G starts from: a shipped model or a .safetensors checkpoint with G's trunk, a"
        " .pt file of ImageNet weights of the encoder, or imagenet (timm fetches them)",
    )
    sources: tuple[Source, ...] = setting((), "data sets; of images without truth N says it")
    held_out: tuple[HeldOut, ...] = setting((), "data sets that the alarm is fitted on")
    sparseness: float = setting(1.0, "λ, weight of the mask's mean", low=0.0)
    pixels: int = setting(
        0, "area of the windows that are trained on, at N's resolution; 0: all", low=0
    )
    smallest_crop: float = setting(0.5, "smallest of them, of the largest", low=0.05, high=1.0)
    loop: LoopSettings = field(default_factory=mask_loop)

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError("sources: expected at least one data set to train on, got none")
        if self.network not in MASKS:
            raise ConfigError(
                f"network: expected a mask network, {', '.join(MASKS)}, got {self.network!r}"
            )


@dataclass(frozen=True, eq=False)
class Frozen:
    """N, which answers and has gradients, and never changes.

    Attributes:
        network: its function, batch norms folded.        checkpoint: as it was read.
        sha256: of its file.        name: what it is called.
    """

    network: nn.Module
    checkpoint: Checkpoint
    sha256: str
    name: str

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised image (N, 3, h, w) → canonical depth (N, 1, h', w')."""
        return self.network(x).float()

    @property
    def pixels(self) -> int:
        """Area of the images it was made for."""
        return self.checkpoint.spec.get("pixels", ModelSpec.pixels)


def open_frozen(model: str, fabric: Fabric) -> Frozen:
    """N on the device of a training.

    Raises:
        ConfigError: when it takes points, gives no metres or more than depth.
        CheckpointError, ModelError: when it cannot be read.
    """
    path = initial_path(model)
    loaded = load(path)
    spec = loaded.spec
    if spec.get("takes_points") or not spec.get("metric", True) or not spec.get("focal_px"):
        raise ConfigError(
            f"model: expected a network of metric depth from images alone, got {path.name}"
            f" ({loaded.network_name})"
        )
    network = folded(loaded.network).requires_grad_(False).to(fabric.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not isinstance(network(torch.zeros(1, 3, 64, 64, device=fabric.device)), Tensor):
        raise ConfigError(f"model: expected a network of depth alone, got {loaded.network_name}")
    return Frozen(network, loaded, sha256_of(path), spec.get("name") or path.stem)


def augment(smallest: float, largest: float) -> Callable[[View, Rng, int, int], View]:
    """Random window of that part of the image, mirror, then what cameras do to colours."""

    def apply(view: View, rng: Rng, width: int, height: int) -> View:
        view = crop_resize(view, rng, width, height, smallest, largest=largest)
        return replace(flip(view, rng), image=camera_look(view.image, rng))

    return apply


def sizes_of(pixels: int) -> tuple[tuple[int, int], ...]:
    """Width and height of this area for each of ASPECTS, in whole cells of the network."""
    return tuple(
        (round((pixels * a) ** 0.5 / 4) * 4, round((pixels / a) ** 0.5 / 4) * 4) for a in ASPECTS
    )


def make_batches(
    settings: MaskSettings,
    frozen: Frozen,
    fabric: Fabric,
    more: Callable[[View, Rng], dict[str, np.ndarray]] | None = None,
) -> Batches:
    """Batches of images and truth in N's canonical metres; truth is 0 where nobody measured.

    Raises:
        ConfigError, DatasetError: when a source cannot be read.
    """

    def nobody(frame: Frame) -> np.ndarray:
        return np.zeros(frame.image.shape[:2], np.float32)

    stored = load_sources(settings.sources, nobody, progress=fabric.global_rank == 0)
    pixels = settings.pixels or frozen.pixels
    # N judges size in pixels: a smaller image is cut out of what N sees, and not shrunk.
    largest = min(1.0, (pixels / frozen.pixels) ** 0.5)
    return Batches(
        stored,
        [s.weight for s in settings.sources],
        augment(settings.smallest_crop * largest, largest),
        sizes_of(pixels),
        frozen.checkpoint.spec["focal_px"],
        settings.loop.batch,
        settings.loop.seed,
        fabric.global_rank,
        fabric.world_size,
        more,
    )


def mask_spec(frozen: Frozen) -> dict[str, Any]:
    """The spec of G: what it is called and what it belongs to; size and scale are N's."""
    return {
        "name": f"{frozen.name}-mask",
        "masks": [{"model": frozen.name, "sha256": frozen.sha256}],
    }


def fit_alarm(kept: Path, settings: MaskSettings) -> None:
    """Store in G's checkpoint which disagreement one clean held-out frame in a hundred exceeds.

    The disagreement is that of the deployed pipeline, and at least LEAST_ALARM; without a held-out
    set there is no alarm.

    Raises:
        DatasetError: when a set cannot be read.
    """
    if not settings.held_out:
        return
    pipeline = DepthPipeline(
        PipelineSettings(
            model=str(initial_path(settings.model)), mask=str(kept), defence="monitor",
            device="cpu", threads=settings.loop.threads,
        )
    )  # fmt: skip
    opened = [held.open() for held in settings.held_out]
    values = [pipeline(data[i].frame).disagreement for data, chosen in opened for i in chosen]
    threshold = float(np.quantile(np.array(values), 1 - FALSE_ALARMS, method="higher"))
    threshold = max(threshold, LEAST_ALARM)
    console.print(f"alarm above {threshold:.3f}: of {len(values)} clean frames at most 1 in 100")
    trained = load(kept)
    alarm = {"threshold": threshold, "false_alarm_rate": FALSE_ALARMS}
    save(kept, replace(trained, spec=trained.spec | {"alarm": alarm}))
