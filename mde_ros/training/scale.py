"""The scale of depth that was learnt from video: one factor, fitted to what a LiDAR measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from mde_ros import checkpoint as checkpoints
from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import Dataset, DatasetError
from mde_ros.export import export
from mde_ros.geometry import median, points_to_depth
from mde_ros.metrics import is_measured
from mde_ros.networks.video import VideoNet
from mde_ros.pipeline import DepthPipeline

FRAMES = 200  # at most, evenly spread
FEWEST = 20  # points that a frame must have
TO_NORMAL = 1.4826  # from the median of deviations to the standard deviation, if they are normal


@dataclass(frozen=True)
class Fit:
    """A factor, and how far to trust it.

    Attributes:
        factor: metres per unit of the model's depth.
        spread: of the frames' own factors about it, robust standard deviation by the factor.
        within: of single points about their frame's factor, likewise: the error of the depth.
        frames: number of frames used.        points: in them.
    """

    factor: float
    spread: float
    within: float
    frames: int
    points: int

    def __str__(self) -> str:
        return (
            f"{self.factor:.4g} metres per unit from {self.points} LiDAR points in {self.frames}"
            f" frames; {self.spread:.1%} apart from frame to frame, {self.within:.1%} from point"
            " to point"
        )


def open_relative(path: Path) -> Checkpoint:
    """A checkpoint that was trained on video.

    Raises:
        ConfigError: when it is another one. CheckpointError: when it cannot be read.
    """
    loaded = checkpoints.load(path)
    if not isinstance(loaded.network, VideoNet):
        raise ConfigError(
            f"{path}: expected a network that was trained on video, got {loaded.network_name},"
            " whose depth is metric"
        )
    return loaded


def fit_scale(model: Path, data: Dataset, progress: bool = True) -> Fit:
    """The median over frames of the median over points of measured by predicted depth.

    Raises:
        DatasetError: when no frame has enough points that meet a prediction.
    """
    settings = PipelineSettings(model=str(model), device="cpu", min_depth=0.0, max_depth=1000.0)
    pipeline = DepthPipeline(settings)
    chosen = np.unique(np.linspace(0, len(data) - 1, min(FRAMES, len(data))).astype(int))
    factors, apart, points = [], [], 0
    for i in track(chosen, "comparing with the LiDAR", disable=not progress):
        frame = data[int(i)].frame
        if frame.points is None:
            continue
        measured_m = points_to_depth(frame.points, pipeline.output_camera(frame.camera))
        depth = pipeline(frame).depth
        both = (measured_m > 0) & is_measured(depth)
        if both.sum() < FEWEST:
            continue
        ratios = measured_m[both] / depth[both]
        factors.append(median(ratios))
        apart.append(TO_NORMAL * median(np.abs(ratios / factors[-1] - 1)))
        points += len(ratios)
    if not factors:
        raise DatasetError(
            f"{data.name}: expected frames with at least {FEWEST} LiDAR points in the image, got"
            f" none among {len(chosen)}; is there a LaserScan or PointCloud2 topic and a transform"
            " to the camera? (--virtual-scan cuts a scan out of measured depth)"
        )
    each = np.array(factors)
    factor = median(each)
    spread = TO_NORMAL * median(np.abs(each / factor - 1))
    return Fit(factor, spread, median(np.array(apart)), len(each), points)


def scaled(loaded: Checkpoint, factor: float, how: dict[str, Any]) -> Checkpoint:
    """The same network in metres; its settings say how it got there.

    Raises:
        ConfigError: when the factor is none.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise ConfigError(f"factor: expected a number above 0, got {factor}")
    loaded.network.scale.mul_(factor)  # type: ignore[union-attr, operator]
    spec, settings = loaded.spec | {"metric": True}, loaded.settings | {"scaled": how}
    return Checkpoint(loaded.network_name, loaded.network, spec, settings)


def write(loaded: Checkpoint, out: Path) -> Path:
    """The checkpoint, and the ONNX file that a robot runs beside it; returns the latter's path.

    Raises:
        ConfigError: when `out` is no name of a checkpoint. ParityError: as `export`.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"out: expected a .safetensors file to write, got {out.name}")
    checkpoints.save(out, loaded)
    export(out, out.with_suffix(".onnx"))
    return out.with_suffix(".onnx")
