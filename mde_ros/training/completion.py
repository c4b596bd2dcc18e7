"""Single-line LiDAR completion without labels: Relative-to-Metric distillation.

RA-L 2023, as reconstructed in METHODS 7b. From images with the scans of a 2-D LiDAR, and a teacher
whose scale does not count:

    L = ℓ_ud + α ℓ_sl + β ℓ_LDP

ℓ_ud: the shape of the teacher's depth, weighted by the network's own uncertainty; ℓ_sl: the
measured points; ℓ_LDP: depth is monotone along straight lines. Measured depth is never looked at,
but that a scan may be cut out of it where a set has no LiDAR.

Ours [OURS]: α and β; OpenCV's LSD finds the lines; the teacher is averaged over mirror image and
crops; and points are hidden from the network (sectors, single beams, all of them) but not from
ℓ_sl, so that it learns how far a point speaks for its surroundings, and metric depth without scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros import checkpoint as checkpoints
from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.datasets import Sample
from mde_ros.datasets.transforms import Rng, View, camera_look, crop_resize, flip
from mde_ros.datasets.virtual_scan import VirtualScan, cut
from mde_ros.geometry import points_to_depth
from mde_ros.losses import line_ranking_loss, point_loss, relative_loss
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.training.batches import Batches, Source, Stored, load_sources, loader
from mde_ros.training.initial import initial_path, load_encoder
from mde_ros.training.loop import LoopSettings, fit, make_fabric
from mde_ros.training.teacher import make_teacher
from mde_ros.training.validation import HeldOut, validation

# About the same area each, and whole cells of the network.
SIZES = ((304, 224), (304, 224), (336, 208), (352, 192), (256, 256))
LINES, SHORTEST_LINE = 32, 30.0  # segments per image; pixels


@dataclass(frozen=True)
class CompletionSettings:
    """A completion network, its teacher, and the recordings it learns from."""

    network: str = setting("completion_mobilenet_v2", "the network, see `mde networks`")
    initial: str = setting(
        "completion",
        "weights to start from: a shipped model, a student or ImageNet's of the encoder",
    )
    teacher: str = setting("default", "teacher: a .onnx or .safetensors file, or a shipped model")
    sources: tuple[Source, ...] = setting((), "recordings with scans; images without are welcome")
    held_out: tuple[HeldOut, ...] = setting((), "data sets with depth to validate on")
    point_weight: float = setting(10.0, "α, weight of the measured points", low=0.0)
    line_weight: float = setting(0.1, "β, weight of the ranking along straight lines", low=0.0)
    hidden: float = setting(
        0.75, "share of the images in which some of the points are hidden", low=0.0, high=1.0
    )
    monocular: float = setting(0.15, "share of the images without any point", low=0.0, high=1.0)
    focal_px: float = setting(
        0.0, "canonical focal length at 304x224 pixels, 0: that of the initial weights", low=0.0
    )
    smallest_crop: float = setting(0.6, "smallest random window, of the image", low=0.05, high=1.0)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=2000,
            batch=8,
            lr=1e-3,
            encoder_lr=1e-4,
            warmup=100,
            frozen=("encoder", "gates", "fuse_up", "fuse", "refine"),  # all that is the student's
        )
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError(
                "sources: expected a recording to learn from (--bag FILE, or sources in the"
                " configuration), got none"
            )


def prepare(source: Source, index: int, sample: Sample) -> Sample:
    """The sample with its scan, measured or virtual, and without its measured depth."""
    if source.scan and sample.truth_m is not None:
        if source.scan == "random":
            rng = np.random.default_rng([len(source.path), index])
            scan = VirtualScan(rng.uniform(0.05, 0.6), rng.uniform(-8, 8), noise=0.01, seed=index)
        else:
            scan = VirtualScan.parse(source.scan)
        points, _ = cut(sample.truth_m, sample.frame.camera, scan, index)
        sample = replace(sample, frame=replace(sample.frame, points=points))
    return replace(sample, truth_m=None)


def augment(settings: CompletionSettings) -> Callable[[View, Rng, int, int], View]:
    """Random window, mirror, small roll, then what cameras do to colours."""

    def apply(view: View, rng: Rng, width: int, height: int) -> View:
        degrees = 3.0 if rng.random() < 0.5 else 0.0
        view = flip(crop_resize(view, rng, width, height, settings.smallest_crop, degrees), rng)
        return replace(view, image=camera_look(view.image, rng))

    return apply


def maps_of(settings: CompletionSettings) -> Callable[[View, Rng], dict[str, np.ndarray]]:
    """All points and those the network sees, (1, h, w) canonical metres; line segments (S, 4)."""
    detector = cv2.createLineSegmentDetector(cv2.LSD_REFINE_NONE)

    def of(view: View, rng: Rng) -> dict[str, np.ndarray]:
        points = np.zeros((0, 3), np.float32) if view.points is None else view.points
        seen = points[shown(points, settings, rng)]
        measured, given = (points_to_depth(p, view.camera)[None] for p in (points, seen))
        lines = np.zeros((LINES, 4), np.float32)
        found = detector.detect(cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY))[0]
        if found is not None:
            found = found.reshape(-1, 4)
            length = np.hypot(*(found[:, 2:] - found[:, :2]).T)
            longest = [i for i in np.argsort(-length)[:LINES] if length[i] >= SHORTEST_LINE]
            lines[: len(longest)] = found[longest]
        return {"points": measured, "given": given, "lines": lines}

    return of


def shown(points: np.ndarray, settings: CompletionSettings, rng: Rng) -> np.ndarray:
    """Which points (N, 3) the network sees: none, all, single beams, the near or the far ones, one
    sector, or all but a few. (N,) bool"""
    kind, n = rng.random(), len(points)
    if kind < settings.monocular:
        return np.zeros(n, bool)
    if kind > settings.monocular + settings.hidden:
        return np.ones(n, bool)
    how = rng.random()
    if how < 0.2:
        return rng.random(n) < rng.uniform(0.05, 0.8)
    border = np.quantile(points[:, 2], rng.uniform(0.1, 0.9)) if n else 0.0
    near = points[:, 2] <= border
    if how < 0.45 and not near.all():  # a scan that met near things only, or far ones
        return near == (rng.random() < 0.7)
    across = points[:, 0] / np.maximum(points[:, 2], 1e-3)
    low, high = (across.min(), across.max()) if n else (0.0, 1.0)
    hide, keep = rng.random() < 0.5, np.ones(n, bool)
    for _ in range(rng.integers(1, 4) if hide else 1):
        middle, half = rng.uniform(low, high), rng.uniform(0.05, 0.25) * (high - low)
        keep &= (np.abs(across - middle) > half) == hide
    return keep


def completion_loss(
    settings: CompletionSettings,
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """The line in the head of this file."""

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"]).contiguous(memory_format=torch.channels_last)
        answer = network(x, batch["given"])
        size = batch["teacher"].shape[2:]
        depth, s = (
            F.interpolate(m.float(), size, mode="bilinear", align_corners=False) for m in answer
        )
        teacher, points = batch["teacher"], batch["points"]
        return (
            relative_loss(depth, s, teacher)
            + settings.point_weight * point_loss(depth, points)
            + settings.line_weight * line_ranking_loss(depth, teacher, batch["lines"])
        )

    return of


def labelled(settings: CompletionSettings, progress: bool = True) -> list[list[Stored]]:
    """All images with their scans and what the teacher says of them, read into memory.

    Raises:
        ConfigError: when none of the recordings has a scan. DatasetError, ModelError: when one of
            them or the teacher cannot be read.
    """
    stored = load_sources(settings.sources, make_teacher(settings.teacher), progress, prepare)
    if not any(image.points is not None and len(image.points) for one in stored for image in one):
        raise ConfigError(
            "sources: expected scans in at least one recording, got none; is there a LaserScan or"
            " PointCloud2 topic, and a transform to the camera? (scan: height=H cuts one)"
        )
    return stored


def train(
    settings: CompletionSettings, out: Path, stored: list[list[Stored]] | None = None
) -> Path:
    """Train the completion network; returns the checkpoint's path.

    Args:
        stored: what `labelled` gave for these sources and this teacher, for several trainings.

    Raises:
        ConfigError, DatasetError, ModelError: on settings or files that cannot be used.
    """
    fabric = make_fabric(settings.loop)
    network = make_network(settings.network)
    if not getattr(network, "takes_points", False):
        raise ConfigError(
            f"network: expected one that takes points, {settings.network} sees images only"
        )
    focal_px = settings.focal_px
    if settings.initial:
        load_encoder(network, settings.network, settings.initial)
        path = initial_path(settings.initial)
        if path.suffix == ".safetensors":
            focal_px = focal_px or checkpoints.load(path).spec["focal_px"]
    if not focal_px:
        raise ConfigError("focal_px: expected the canonical focal length in pixels, got 0")
    if stored is None:
        stored = labelled(settings, progress=fabric.global_rank == 0)
    batches = Batches(
        stored,
        [s.weight for s in settings.sources],
        augment(settings),
        SIZES,
        focal_px,
        settings.loop.batch,
        settings.loop.seed,
        fabric.global_rank,
        fabric.world_size,
        maps_of(settings),
    )
    spec = {
        "name": settings.network,
        "focal_px": focal_px,
        "pixels": SIZES[0][0] * SIZES[0][1],
        "multiple": 16,
        "takes_points": True,
    }
    workers = settings.loop.workers
    return fit(
        fabric,
        Checkpoint(settings.network, network, spec, as_dict(settings)),
        lambda first, last: loader(batches, first, last, workers),
        completion_loss(settings),
        settings.loop,
        out,
        validation(settings.held_out),
    )


SETTINGS = CompletionSettings
