"""Transforms from TF. Imports tf2_ros, which only a ROS installation has."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from tf2_ros import Buffer, TransformException, TransformListener

from mde_ros.geometry import pose
from mde_ros.nodes.convert import Rejected


class TfTree:
    """Listens to /tf and /tf_static with a node's own executor, until closed."""

    def __init__(self, node: Node) -> None:
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node, spin_thread=False)

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """T_target_source (4, 4) at a time, without waiting for it.

        Raises:
            Rejected: no_transform, when TF does not know one of the frames (LookupException), no
                way between them (ConnectivityException), or not at that time
                (ExtrapolationException, as when its publisher has stopped); or it is no transform.
        """
        self._take_all()
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
            move, turn = found.transform.translation, found.transform.rotation
            quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
            T = pose(np.array([move.x, move.y, move.z]), quaternion)
        except (TransformException, ValueError) as error:
            raise Rejected("no_transform", f"TF from {source!r} to {target!r}: {error}") from None
        if not np.isfinite(T).all():
            raise Rejected("no_transform", f"TF from {source!r} to {target!r}: it is not finite")
        return T

    def _take_all(self) -> None:
        """Hand over what has come on /tf: an executor takes but one message for each image."""
        subscription = self._listener.tf_sub
        with subscription.handle:
            while taken := subscription.handle.take_message(subscription.msg_type, False):
                self._listener.callback(taken[0])

    def clear(self) -> None:
        """Forget what moved, as when time has jumped back; TF refuses older transforms else."""
        self._buffer.clear()

    def close(self) -> None:
        """End the subscriptions."""
        self._listener.unregister()
