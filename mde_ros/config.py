"""Settings as frozen dataclasses, each default written once, and one strict loader.

Precedence everywhere: defaults < file < flag. An unknown key is an error that lists the valid ones.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used; the message says what was expected and what came."""


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple | None = None,
    live: bool = False,
) -> Any:
    """A dataclass field with a description, bounds and whether it may change while running."""
    return field(
        default=default,
        metadata={"help": help, "low": low, "high": high, "choices": choices, "live": live},
    )


@dataclass(frozen=True)
class PipelineSettings:
    """What DepthPipeline needs to know; every field is a ROS parameter of the nodes too."""

    model: str = setting("default", "shipped model name, or path of a .safetensors or .onnx file")
    runtime: str = setting(
        "auto",
        "inference library; auto takes torch on a GPU and onnxruntime on a CPU",
        choices=("auto", "torch", "onnxruntime", "openvino", "tensorrt"),
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    threads: int = setting(2, "CPU threads of the inference library, 0 = all", low=0, high=256)
    domain: str = setting(
        "auto", "domain of a lifelong model: auto takes the nearest to what the camera sees"
    )
    defence: str = setting(
        "off",
        "mask: depth of the pixels that the model's mask shows; monitor: held against all of them",
        choices=("off", "mask", "monitor"),
        live=True,
    )
    mask: str = setting("auto", "path of the mask; auto takes that of the model, MODEL-mask")
    alarm_threshold: float = setting(
        0.0,
        "disagreement that monitor warns of; 0 = that of the mask",
        low=0.0,
        high=10.0,
        live=True,
    )
    min_depth: float = setting(
        0.1, "metres; nearer depth is reported as none", low=0.0, high=1000.0, live=True
    )
    max_depth: float = setting(
        80.0, "metres; farther depth is reported as none", low=0.0, high=1000.0, live=True
    )

    def __post_init__(self) -> None:
        check(self)
        if self.min_depth >= self.max_depth:
            raise ConfigError(
                f"min_depth: expected less than max_depth ({self.max_depth}), got {self.min_depth}"
            )


@dataclass(frozen=True)
class NodeSettings(PipelineSettings):
    """Parameters of the depth node, beyond those of its pipeline."""

    enabled: bool = setting(True, "whether frames are processed", live=True)
    autostart: bool = setting(False, "configure and activate without a lifecycle manager")
    image_transport: str = setting("raw", "how images arrive", choices=("raw", "compressed"))
    rectified: bool = setting(
        False, "images are rectified already: P of camera_info counts, K and D do not"
    )
    depth_encoding: str = setting(
        "32FC1",
        "32FC1: metres, NaN = none; 16UC1: millimetres, 0 = none",
        choices=("32FC1", "16UC1"),
    )
    point_stride: int = setting(
        1, "publish every n-th row and column of the cloud", low=1, high=64, live=True
    )
    point_colour: bool = setting(True, "xyzrgb cloud instead of xyz", live=True)
    colour_max_depth: float = setting(
        10.0, "metres shown as the far end of depth/colour", low=0.1, high=1000.0, live=True
    )
    publish_reliability: str = setting(
        "reliable",
        "QoS of the published topics (RViz hears only reliable)",
        choices=("reliable", "best_effort"),
    )
    subscribe_reliability: str = setting(
        "best_effort",
        "QoS of the camera subscription; best_effort hears every publisher",
        choices=("reliable", "best_effort"),
    )
    diagnostics_period: float = setting(
        1.0, "seconds between two diagnostics messages", low=0.1, high=60.0
    )


@dataclass(frozen=True)
class CompletionSettings(NodeSettings):
    """Parameters of the completion node, beyond those of the depth node."""

    model: str = setting("completion", "as in the depth node, but one that takes LiDAR points")
    scan_type: str = setting(
        "LaserScan", "type of the messages on scan", choices=("LaserScan", "PointCloud2")
    )
    max_scan_age: float = setting(
        0.2,
        "seconds that the middle of a scan may be before or after the image",
        low=0.0,
        high=1.0,
        live=True,
    )
    on_missing_scan: str = setting(
        "drop",
        "what becomes of an image without a scan: drop, or monocular depth",
        choices=("drop", "monocular"),
        live=True,
    )
    laser_to_camera: str = setting(
        "", "pose of the laser in the camera's optical frame, x y z qx qy qz qw; empty: from TF"
    )
    deskew: bool = setting(
        False, "move each ray to the time of the image, with the velocity on odom"
    )
    laser_to_base: str = setting(
        "", "pose of the laser in the frame of that velocity, x y z qx qy qz qw; empty: from TF"
    )
    max_disagreement: float = setting(
        0.15,
        "diagnostics warn when depth and scan differ by more than this part of the distance",
        low=0.0,
        high=10.0,
        live=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("laser_to_camera", "laser_to_base"):
            pose_numbers(name, getattr(self, name))


def _matches(value: Any, expected: Any) -> bool:
    if typing.get_origin(expected) in (Union, types.UnionType):
        return any(_matches(value, option) for option in typing.get_args(expected))
    if typing.get_origin(expected) is tuple:
        items = typing.get_args(expected)
        if not isinstance(value, tuple):
            return False
        if items[-1] is Ellipsis:
            items = items[:1] * len(value)
        return len(value) == len(items) and all(map(_matches, value, items))
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(expected, type) or isinstance(value, expected)


def _tuple_items(expected: Any) -> tuple:
    """Item types of a tuple type, also of an optional one; () for any other type."""
    if typing.get_origin(expected) in (Union, types.UnionType):
        return next(filter(None, map(_tuple_items, typing.get_args(expected))), ())
    return typing.get_args(expected) if typing.get_origin(expected) is tuple else ()


def _number(text: str) -> float | str:
    """What YAML 1.1 leaves a string though it is meant as a number: 1e-3."""
    try:
        return float(text) if any(c.isdigit() for c in text) else text
    except ValueError:
        return text


def _is_settings(expected: Any) -> bool:
    return dataclasses.is_dataclass(expected)


def _type_name(expected: Any) -> str:
    return expected.__name__ if type(expected) is type else str(expected)


def check(settings: Any) -> None:
    """Hold every field of a settings dataclass against its type, bounds and choices.

    Raises:
        ConfigError: naming the field, what was expected and what came.
    """
    hints = typing.get_type_hints(type(settings))
    for f in dataclasses.fields(settings):
        value, meta = getattr(settings, f.name), f.metadata
        if not _matches(value, hints[f.name]):
            raise ConfigError(f"{f.name}: expected {_type_name(hints[f.name])}, got {value!r}")
        if meta.get("choices") and value not in meta["choices"]:
            options = ", ".join(map(str, meta["choices"]))
            raise ConfigError(f"{f.name}: expected one of {options}, got {value!r}")
        low, high = meta.get("low"), meta.get("high")
        if value is not None and (
            (low is not None and not value >= low) or (high is not None and not value <= high)
        ):
            raise ConfigError(f"{f.name}: expected a value in [{low}, {high}], got {value!r}")


def pose_numbers(name: str, text: str) -> tuple[float, ...]:
    """The seven numbers of a pose "x y z qx qy qz qw"; none of an empty text.

    Raises:
        ConfigError: naming what was expected, also when the quaternion's length is not 1.
    """
    try:
        numbers = tuple(map(float, text.replace(",", " ").split()))
    except ValueError:
        numbers = (math.nan,)
    if numbers and not (len(numbers) == 7 and all(map(math.isfinite, numbers))):
        raise ConfigError(f"{name}: expected seven numbers, x y z qx qy qz qw, got {text!r}")
    length = math.hypot(*numbers[3:])
    if numbers and abs(length - 1) > 0.01:
        raise ConfigError(f"{name}: expected a quaternion of length 1, got {length:.3f} ({text!r})")
    return numbers


def build(
    cls: type[T], values: Mapping[str, Any], source: str = "settings", defaults: T | None = None
) -> T:
    """Make a settings dataclass from a mapping; nested dataclasses from nested mappings.

    Args:
        defaults: what is not named comes from here. A nested group has those of its field, which
            need not be those of its class.

    Raises:
        ConfigError: on an unknown key (the valid ones are listed) or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected a mapping of names to values, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{source}: unknown key {key!r}; valid: {', '.join(sorted(fields))}")
        hint: Any = hints[key]
        if _is_settings(hint) and isinstance(value, Mapping):
            make = fields[key].default_factory
            own = make() if callable(make) else None
            value = build(hint, value, f"{source}.{key}", getattr(defaults, key, own))
        elif hint is float and isinstance(value, str):
            value = _number(value)
        elif value is False and "off" in (fields[key].metadata.get("choices") or ()):
            value = "off"  # which YAML 1.1 takes for false
        elif isinstance(value, list) and (items := _tuple_items(hint)):
            item = items[0]
            value = tuple(
                build(item, v, f"{source}.{key}[{i}]") if _is_settings(item) else v
                for i, v in enumerate(value)
            )
        arguments[key] = value
    try:
        if defaults is not None:
            return dataclasses.replace(defaults, **arguments)  # type: ignore[type-var]
        return cls(**arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{source}: {error}") from None


def load(cls: type[T], path: str | Path | None = None, **flags: Any) -> T:
    """Settings from defaults, then a YAML file, then flags (those that are not None).

    Raises:
        ConfigError: on a missing or malformed file, an unknown key or a value out of range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: not valid YAML ({reason})") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path}: expected a mapping of names to values")
        values.update(loaded or {})
    merge(values, {k: v for k, v in flags.items() if v is not None})
    return build(cls, values, str(path) if path is not None else "settings")


def merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Put `over` on top of `values`, group by group."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def as_dict(settings: Any) -> dict[str, Any]:
    """The effective settings as plain values, to be stored in checkpoints and results."""
    return dataclasses.asdict(settings)
