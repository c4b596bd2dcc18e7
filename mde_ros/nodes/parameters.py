"""One ROS parameter per settings field; defaults, texts and ranges stand in the dataclass."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mde_ros.config import ConfigError, build

T = TypeVar("T")


def declare(node: Node, cls: type[T]) -> tuple[T, str]:
    """Declare every field of a settings dataclass as a parameter of the node.

    Fields marked live can be set while running, the others are read-only. The choice "off" may be
    given as false, which is what YAML, and so `ros2 param set`, makes of it.

    Returns:
        The settings with the values given on the command line or in a parameter file, and "". If
        any of those is unknown, of the wrong type or out of range: the defaults, and the reason;
        but autostart stays as given, so that the node tries, fails and says why.
    """
    hints = typing.get_type_hints(cls)
    # Names that rclpy declares itself (use_sim_time, …) or reads on its own are not ours to judge.
    values = {
        name: float(p.value) if hints.get(name) is float and type(p.value) is int else p.value
        for name, p in node._parameter_overrides.items()  # rclpy offers no public way to them
        if not node.has_parameter(name) and not name.startswith("qos_overrides.")
    }
    try:
        settings, problem = build(cls, values, "parameters"), ""
    except ConfigError as error:
        asked = values.get("autostart") is True and "autostart" in hints
        settings, problem = build(cls, {"autostart": True} if asked else {}), str(error)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        value = getattr(settings, f.name)
        node.declare_parameter(f.name, value, _descriptor(f), ignore_override=True)
    switches = {f.name for f in dataclasses.fields(cls) if "off" in (f.metadata["choices"] or ())}  # type: ignore[arg-type]

    def false_is_off(parameters: list[Parameter]) -> list[Parameter]:
        off = {p.name for p in parameters if p.name in switches and p.value is False}
        return [Parameter(p.name, value="off") if p.name in off else p for p in parameters]

    if hasattr(node, "add_pre_set_parameters_callback"):  # not in humble: write "'off'" there
        node.add_pre_set_parameters_callback(false_is_off)
    return settings, problem


def follow(node: Node, get: Callable[[], T], apply: Callable[[T], None]) -> None:
    """Hand over new settings whenever live parameters change; refuse values that do not fit.

    Args:
        node: whose parameters were declared by `declare`.
        get: returns the present settings.
        apply: called with the new settings, which are valid; raises ValueError, RuntimeError or
            OSError when what they ask for is not to be had, and then has changed nothing.
    """

    def on_set(parameters: list[Parameter]) -> SetParametersResult:
        names = {f.name for f in dataclasses.fields(get())}  # type: ignore[arg-type]
        changed: dict[str, Any] = {p.name: p.value for p in parameters if p.name in names}
        try:
            settings = dataclasses.replace(get(), **changed)  # type: ignore[type-var]
            if changed:
                apply(settings)
        except (ValueError, RuntimeError, OSError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)


def _descriptor(f: dataclasses.Field) -> ParameterDescriptor:
    meta = f.metadata
    descriptor = ParameterDescriptor(description=meta["help"], read_only=not meta["live"])
    if meta["choices"]:
        descriptor.additional_constraints = f"one of {', '.join(meta['choices'])}"
    low, high = meta["low"], meta["high"]
    if low is not None and high is not None:
        if isinstance(f.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
    return descriptor
