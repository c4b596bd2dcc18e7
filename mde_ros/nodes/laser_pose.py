"""Where the laser is: as a parameter says, else as TF does; never an invented pose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mde_ros.config import CompletionSettings, pose_numbers
from mde_ros.geometry import pose
from mde_ros.nodes.convert import Rejected

if TYPE_CHECKING:
    from mde_ros.nodes.tf_tree import TfTree


class LaserPose:
    """The laser in the camera's optical frame, and in the base whose velocity odometry tells.

    Args:
        settings: laser_to_camera and laser_to_base count.
        tf: None where tf2_ros is not installed or not needed.
    """

    def __init__(self, settings: CompletionSettings, tf: TfTree | None) -> None:
        self._tf = tf
        self._given = {}  # parameter → (4, 4), of those that are set
        for name in ("laser_to_camera", "laser_to_base"):
            numbers = pose_numbers(name, getattr(settings, name))
            if numbers:
                self._given[name] = pose(np.array(numbers[:3]), np.array(numbers[3:]))

    @property
    def source(self) -> str:
        """Where the pose in the camera's frame comes from, for diagnostics."""
        if "laser_to_camera" in self._given:
            return "parameter laser_to_camera"
        return "TF" if self._tf else "none: neither TF nor laser_to_camera"

    def in_camera(self, camera: str, laser: str, stamp_ns: int) -> np.ndarray:
        """T_camera_laser (4, 4) at a time.

        Args:
            camera, laser: names of the frames in TF.

        Raises:
            Rejected: no_transform_source, when there is neither parameter nor TF; no_transform,
                when TF does not know it.
        """
        return self._lookup("laser_to_camera", camera, laser, stamp_ns)

    def in_base(self, base: str, laser: str, stamp_ns: int) -> np.ndarray:
        """T_base_laser, likewise."""
        return self._lookup("laser_to_base", base, laser, stamp_ns)

    def clear(self) -> None:
        """Forget what TF said: time has jumped back."""
        if self._tf:
            self._tf.clear()

    def _lookup(self, parameter: str, target: str, laser: str, stamp_ns: int) -> np.ndarray:
        if parameter in self._given:
            return self._given[parameter]
        if self._tf is None:
            raise Rejected(
                "no_transform_source",
                "expected the pose of the laser, there is none: tf2_ros cannot be imported and the"
                f" parameter {parameter} is empty; set it to x y z qx qy qz qw",
            )
        return self._tf.lookup(target, laser, stamp_ns)
