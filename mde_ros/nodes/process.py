"""A node as a process: start, serve, and end with a clean exit code."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from importlib import resources
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

# Fast DDS reads the first up to jazzy, the second from kilted on.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Serve a lifecycle node that has `settings` and `start`, until SIGINT or SIGTERM.

    Returns:
        The exit code: 0 after a signal, 1 when autostart was asked for and failed.
    """
    return serve(make_node, args, _autostart)


def _autostart(node: Any) -> bool:
    if node.settings.autostart:
        return node.start()
    node.get_logger().info(
        "unconfigured; start me with -p autostart:=true, or with `ros2 lifecycle set"
        f" {node.get_fully_qualified_name()} configure` and then `activate`"
    )
    return True


def serve(
    make_node: Callable[[], Any],
    args: list[str] | None = None,
    start: Callable[[Any], bool] = lambda node: True,
) -> int:
    """Serve any node until SIGINT or SIGTERM.

    Args:
        start: called first; false ends the process.

    Returns:
        The exit code: 0 after a signal, 1 when `start` failed by itself.
    """
    node = None
    try:
        rclpy.init(args=args)
        node = make_node()
        if not start(node) and rclpy.ok():  # a signal makes it fail too
            return 1
        spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would spoil the exit code
        if node is not None:
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
    return 0


def spin(node: Node) -> None:
    """Run the callbacks of a node until its context is shut down."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    while node.context.ok():
        try:
            executor.spin()
        except rclpy_implementation.RCLError as error:
            # A transition that the state forbids; after a shutdown in mid-frame it says nothing.
            if node.context.ok():
                node.get_logger().warning(str(error))


def dds_environment() -> dict[str, str]:
    """What to add to the environment, so that large messages pass between processes unharmed.

    It names the Fast DDS profile of this package, unless the environment names one already.
    """
    if any(name in os.environ for name in PROFILE_VARIABLES):
        return {}
    profile = str(resources.files("mde_ros.nodes") / "fastdds.xml")
    return dict.fromkeys(PROFILE_VARIABLES, profile)
