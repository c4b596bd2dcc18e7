"""A node as a process: start, serve, and end with a clean exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Serve a lifecycle node that has `settings` and `start`, until SIGINT or SIGTERM.

    Returns:
        The exit code: 0 after a signal, 1 when autostart was asked for and failed.
    """
    node = None
    try:
        rclpy.init(args=args)
        node = make_node()
        if node.settings.autostart and not node.start():
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


def fastdds_profile() -> str | None:
    """The Fast DDS profile of this package: in the source tree, or where it is installed."""
    root = Path(__file__).resolve().parents[2]
    prefixes = [Path(sys.prefix), *map(Path, os.environ.get("AMENT_PREFIX_PATH", "").split(":"))]
    for folder in (root, *(p / "share" / "mde_ros" for p in prefixes)):
        if (folder / "config" / "fastdds.xml").is_file():
            return str(folder / "config" / "fastdds.xml")
    return None
