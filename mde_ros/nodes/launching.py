"""What the launch files share: their arguments, and a node of this package with all it is told."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.launch_context import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from mde_ros.nodes.process import dds_environment

SHARE = Path(get_package_share_directory("mde_ros"))
RESPAWN_DELAY_S = 2.0
LAST_ONES_S = 2.0
Arguments = Mapping[str, tuple[str | None, str]]  # name → default (None: required), description


def declare(arguments: Arguments) -> list[DeclareLaunchArgument]:
    """The arguments of a launch file, as `ros2 launch … --show-args` lists them."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in arguments.items()
    ]


def values(context: LaunchContext, arguments: Arguments) -> dict[str, str]:
    """What the arguments were given."""
    return {name: LaunchConfiguration(name).perform(context) for name in arguments}


def large_messages() -> list[SetEnvironmentVariable]:
    """The Fast DDS profile for whatever is started after this, unless the user has one."""
    return [SetEnvironmentVariable(name, path) for name, path in dds_environment().items()]


def include(file: str) -> IncludeLaunchDescription:
    """Another launch file of this package; arguments that were given reach it too."""
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(str(SHARE / "launch" / file)))


def python(name: str, command: Sequence[str], **options: Any) -> ExecuteProcess:
    """A module of this package as a process: `python -m COMMAND`."""
    command = [sys.executable, "-m", *command]
    return ExecuteProcess(cmd=command, name=name, output="screen", **options)


def end_all(reason: str) -> Callable[[Any, LaunchContext], list[Any]]:
    """For `on_exit` of a process that the others are there for: they end too, when what is on its
    way has arrived. Not if the end has begun: a second shutdown is an error to launch.
    """

    def on_exit(event: Any, context: LaunchContext) -> list[Any]:
        end = TimerAction(period=LAST_ONES_S, actions=[Shutdown(reason=reason)])
        return [] if context.is_shutdown else [end]

    return on_exit


def lifecycle_node(
    executable: str, settings: type, params_file: str, topics: Mapping[str, str]
) -> list[Any]:
    """A lifecycle node of this package.

    Each of its parameters is an argument, and one that is given overrules the parameter file.

    Args:
        executable: its name, which is the node's too by default.
        settings: dataclass of its parameters.
        params_file: in config/, the default of the argument of that name.
        topics: its subscriptions, each an argument to remap it: name → description.
    """
    parameters: dict[str, tuple[str, str]] = {  # empty: not passed on
        **{f.name: ("", f.metadata["help"]) for f in dataclasses.fields(settings)},
        "autostart": ("true", "configure and activate without a lifecycle manager"),
        "use_sim_time": ("", "take the time from /clock"),
    }
    arguments: dict[str, tuple[str | None, str]] = {
        **{topic: (topic, text) for topic, text in topics.items()},
        "namespace": ("", "namespace of the node and of its relative topics"),
        "name": (executable, "name of the node"),
        "params_file": (str(SHARE / "config" / params_file), "parameters of the node"),
        "log_level": ("info", "debug, info, warn or error"),
        "respawn": ("true", f"start the node again {RESPAWN_DELAY_S:g} s after it has ended"),
        **parameters,
    }

    def start(context: LaunchContext) -> list[Any]:
        value = values(context, arguments)
        given = {name: yaml.safe_load(value[name]) for name in parameters if value[name]}
        node = LifecycleNode(
            package="mde_ros",
            executable=executable,
            name=value["name"],
            namespace=value["namespace"],
            parameters=[value["params_file"], given],
            remappings=[(topic, value[topic]) for topic in topics],
            ros_arguments=["--log-level", value["log_level"]],
            respawn=yaml.safe_load(value["respawn"]),
            respawn_delay=RESPAWN_DELAY_S,
            output="screen",
        )
        return [*large_messages(), node]

    return [*declare(arguments), OpaqueFunction(function=start)]
