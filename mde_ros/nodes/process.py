"""A node as a process: start, serve, and end with a clean exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable
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
            if (
                node.context.ok()
            ):  # a transition that the state forbids, not a shutdown in mid-frame
                node.get_logger().warning(str(error))
