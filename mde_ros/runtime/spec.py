"""What a network takes and gives, and what a loaded one answers; no library is needed for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mde_ros.config import ConfigError, build, check, setting

BY_DOMAIN = ("domain", "distances", "depth_each", "uncertainty_each")


class ModelError(ValueError):
    """A model that cannot be found, read or run; the message says what to do."""


@dataclass(frozen=True)
class Masked:
    """A model that a mask may be used with: weights of exactly this hash."""

    model: str = setting("", "what it is called")
    sha256: str = setting("", "of its checkpoint")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Alarm:
    """When the monitor warns of a mask's model; see defence.disagreement."""

    threshold: float = setting(0.0, "disagreement that is too much; 0: not known", low=0, high=10)
    false_alarm_rate: float = setting(0.0, "part of clean frames above it", low=0, high=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ModelSpec:
    """What a network takes and gives; read from a checkpoint, an ONNX file or a YAML beside it.

    The fields from `layout` on describe a foreign network ("bring your own"); networks of this
    package have all of that inside and keep the defaults.
    """

    name: str = setting("", "what the model is called in tables")
    size: tuple[int, int] | None = setting(None, "fixed input width and height in pixels")
    pixels: int = setting(304 * 228, "input area when the size is free", low=1024)
    multiple: int = setting(4, "width and height are rounded to a multiple of this", low=1)
    focal_px: float | None = setting(
        None, "focal length in input pixels that the depth scale belongs to; none: no correction"
    )
    metric: bool = setting(True, "whether the output is metres, not relative depth")
    takes_points: bool = setting(False, "whether the network takes sparse depth too")
    domains: tuple[str, ...] = setting((), "names of a lifelong network's domains")
    masks: tuple[Masked, ...] = setting((), "of a mask: the models that it may be used with")
    alarm: Alarm = field(default_factory=Alarm)  # of a mask: when the monitor warns
    foreign: bool = setting(False, "normalise and correct outside the network, as given below")
    layout: str = setting("nchw", "order of a foreign network's input", choices=("nchw", "nhwc"))
    colour: str = setting("rgb", "channel order of a foreign network", choices=("rgb", "bgr"))
    scale: float = setting(1 / 255, "pixel values are multiplied by this first")
    mean: tuple[float, ...] = setting((0.0, 0.0, 0.0), "then this is subtracted, per channel")
    std: tuple[float, ...] = setting((1.0, 1.0, 1.0), "then divided by this, per channel")
    output: str = setting(
        "depth", "what a foreign network puts out", choices=("depth", "inverse_depth")
    )
    output_scale: float = setting(1.0, "metres (or 1/metres) per unit of output")

    def __post_init__(self) -> None:
        check(self)


class Runtime(Protocol):
    """A loaded network."""

    spec: ModelSpec
    name: str  # onnxruntime, torch, …
    device: str  # cpu, cuda:0, …
    path: Path
    sha256: str  # of the file that holds the weights
    weights_sha256: str  # of the checkpoint that they came from, as far as that is known

    def __call__(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """image (h, w, 3) uint8, sparse (h, w) float32 metres → {"depth": (h', w') float32, …}.

        Without sparse depth a completion network gets a map of no points.
        Depth is NaN where the network has none, so that resizing does not mix it with metres.
        Where the spec has domains, there are also domain (), distances (D,), depth_each and
        uncertainty_each (D, h', w'); with a mask there is saliency (h, w); see DepthModel.
        """


def spec_from_json(text: str, source: str) -> ModelSpec:
    """Parse the spec stored in a checkpoint or ONNX file.

    Raises:
        ModelError: when it is not one of this package.
    """
    try:
        return build(ModelSpec, json.loads(text), source)
    except (json.JSONDecodeError, ConfigError) as error:
        raise ModelError(f"{source}: its description cannot be used ({error})") from None


def spec_to_json(spec: ModelSpec) -> str:
    """The spec as it is stored; only what differs from the defaults."""
    default, values = dataclasses.asdict(ModelSpec()), dataclasses.asdict(spec)
    return json.dumps({k: v for k, v in values.items() if v != default[k]})


def points_or_none(sparse: np.ndarray | None, image: np.ndarray) -> np.ndarray:
    """What a completion network is fed: (1, 1, h, w) float32 metres, all 0 without points."""
    if sparse is None:
        return np.zeros((1, 1, *image.shape[:2]), np.float32)
    return np.ascontiguousarray(sparse, np.float32)[None, None]


def one_image(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The only image of a batch: maps (h, w), and what has a value for each domain (D, …)."""
    return {k: v[0] if k in BY_DOMAIN else v[0, 0] for k, v in outputs.items()}
