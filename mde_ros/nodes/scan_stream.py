"""Which points belong to an image: pairs images with LiDAR scans, in the camera's frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.time import Time
from sensor_msgs.msg import LaserScan, PointCloud2
from std_msgs.msg import Header

from mde_ros.config import CompletionSettings
from mde_ros.datasets.scans import Returns, ScanError, cloud_returns, scan_returns
from mde_ros.frame import Camera, Prediction
from mde_ros.geometry import in_view, twist_motion
from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.laser_pose import LaserPose
from mde_ros.nodes.scan_statistics import ScanStatistics

RETURNS = {LaserScan: scan_returns, PointCloud2: cloud_returns}
LATE_S = 1.0  # by which an image may come after the scans of its time
MOST_SCANS = 256  # that are kept, whatever their stamps


@dataclass(frozen=True, eq=False)
class Scan:
    """The returns of one LiDAR message, its frame in TF, its stamp and the middle of its sweep."""

    returns: Returns
    frame_id: str
    stamp_ns: int
    middle_ns: int


@dataclass(frozen=True, eq=False)
class InView:
    """Points (N, 3) in the camera's frame, and the pixel of each: rows (N,), columns (N,)."""

    points: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


class ScanStream:
    """The scan nearest in time counts for an image, among those that have come: nothing waits.

    Args:
        settings: returns the present ones; max_scan_age, on_missing_scan and deskew count.
        topic: name of the scans' topic, for messages.
        pose: where the laser is.
        statistics: told of everything that happens here.
    """

    def __init__(
        self,
        settings: Callable[[], CompletionSettings],
        topic: str,
        pose: LaserPose,
        statistics: ScanStatistics,
    ) -> None:
        self._settings, self._topic, self._pose = settings, topic, pose
        self._statistics = statistics
        self._window: deque[Scan] = deque(maxlen=MOST_SCANS)
        self._odometry: Odometry | None = None

    def take_scan(self, msg: LaserScan | PointCloud2) -> None:
        """Keep a scan, unless it contradicts itself, measured nothing or does not say when."""
        self._statistics.scans_in += 1
        try:
            scan = scan_from(msg)
        except Rejected as error:
            return self._statistics.reject(error)
        if self._window and scan.stamp_ns < self._window[-1].stamp_ns:
            self._statistics.jump((self._window[-1].stamp_ns - scan.stamp_ns) * 1e-9)
            self._window.clear()
            self._pose.clear()
        self._window.append(scan)
        oldest_ns = scan.middle_ns - (LATE_S + self._settings().max_scan_age) * 1e9
        while self._window[0].middle_ns < oldest_ns:
            self._window.popleft()

    def take_odometry(self, msg: Odometry) -> None:
        """Keep the robot's velocity."""
        self._odometry = msg

    def points_for(self, header: Header, camera: Camera) -> InView | None:
        """The points that the camera of an image with this header sees.

        Args:
            camera: without distortion.

        Returns:
            None for monocular depth, where the settings allow it.

        Raises:
            Rejected: no_scan, scan_age, no_transform, scan_out_of_view; no_transform_source always.
        """
        try:
            return self._points_for(header, camera)
        except Rejected as error:
            if self._settings().on_missing_scan == "drop" or error.reason == "no_transform_source":
                raise
            self._statistics.monocular(error)
            return None

    def _points_for(self, header: Header, camera: Camera) -> InView:
        stamp_ns = Time.from_msg(header.stamp).nanoseconds
        scan = self._nearest(stamp_ns)
        T_camera_laser = self._pose.in_camera(header.frame_id, scan.frame_id, stamp_ns)
        points = scan.returns.seen_from(*self._ends(scan, T_camera_laser, stamp_ns))
        seen, rows, columns = in_view(points, camera)
        if not seen.size:
            raise Rejected(
                "scan_out_of_view",
                f"expected the camera {header.frame_id!r} to see points of {scan.frame_id!r}, none"
                f" of {len(points)} lies in the image; is the pose of the laser right?",
            )
        self._statistics.used((stamp_ns - scan.middle_ns) * 1e-9, seen.size)
        return InView(points[seen], rows, columns)

    def _nearest(self, stamp_ns: int) -> Scan:
        if not self._window:
            raise Rejected("no_scan", f"expected a scan on {self._topic}, none has come to use")
        newest_first = reversed(self._window)
        scan = min(newest_first, key=lambda s: abs(s.middle_ns - stamp_ns))
        age_s, limit_s = (stamp_ns - scan.middle_ns) * 1e-9, self._settings().max_scan_age
        if abs(age_s) > limit_s:
            raise Rejected(
                "scan_age",
                f"expected a scan within {limit_s:g} s of the image, the nearest on {self._topic}"
                f" is {abs(age_s):.3f} s {'older' if age_s > 0 else 'newer'}; has the laser"
                " stopped, or is its clock not the camera's?",
            )
        return scan

    def _ends(
        self, scan: Scan, T_camera_laser: np.ndarray, stamp_ns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The laser in the camera's frame of the image, as it was at both ends of the sweep."""
        if not self._settings().deskew:
            return T_camera_laser, T_camera_laser
        try:
            twist, T_base_laser = self._velocity(scan, stamp_ns)
        except Rejected as error:
            self._statistics.not_deskewed(error)
            return T_camera_laser, T_camera_laser
        T_camera_base = T_camera_laser @ np.linalg.inv(T_base_laser)
        since_image_s = (scan.stamp_ns - stamp_ns) * 1e-9
        first, last = (
            T_camera_base @ twist_motion(*twist, since_image_s + seconds) @ T_base_laser
            for seconds in scan.returns.sweep_s
        )
        return first, last

    def _velocity(
        self, scan: Scan, stamp_ns: int
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Linear and angular velocity of the base, and the laser in its frame."""
        odometry, limit_s = self._odometry, self._settings().max_scan_age
        if odometry is None:
            raise Rejected("no_odometry", "expected a message on odom, none has come")
        age_s = (stamp_ns - Time.from_msg(odometry.header.stamp).nanoseconds) * 1e-9
        if abs(age_s) > limit_s:
            raise Rejected(
                "odometry_age",
                f"expected odometry within {limit_s:g} s of the image, the newest is"
                f" {abs(age_s):.3f} s {'older' if age_s > 0 else 'newer'}",
            )
        twist = odometry.twist.twist
        linear, angular = (np.array([v.x, v.y, v.z]) for v in (twist.linear, twist.angular))
        if not (np.isfinite(linear).all() and np.isfinite(angular).all()):
            raise Rejected("odometry_invalid", "expected a finite velocity in odometry, got NaN")
        return (linear, angular), self._pose.in_base(
            odometry.child_frame_id, scan.frame_id, stamp_ns
        )

    def compare(self, seen: InView, prediction: Prediction) -> None:
        """Hold a prediction against the points it was made with."""
        depth_m = prediction.depth[seen.rows, seen.columns]
        valid = depth_m > 0
        if valid.any():
            self._statistics.compared(depth_m[valid], seen.points[valid, 2])


def scan_from(msg: LaserScan | PointCloud2) -> Scan:
    """The returns of a LiDAR message and the times of them.

    Raises:
        Rejected: scan_invalid, scan_empty or scan_no_stamp.
    """
    try:
        returns = RETURNS[type(msg)](msg)
    except ScanError as error:
        raise Rejected("scan_invalid", str(error)) from None
    if not len(returns.points):
        beams = len(msg.ranges) if isinstance(msg, LaserScan) else msg.width * msg.height
        raise Rejected(
            "scan_empty", f"scan: expected returns within its range, got none of {beams} beams"
        )
    stamp_ns = Time.from_msg(msg.header.stamp).nanoseconds
    if not stamp_ns:
        raise Rejected("scan_no_stamp", "scan: expected the time it was measured, got a stamp of 0")
    middle_ns = stamp_ns + round(sum(returns.sweep_s) / 2 * 1e9)
    return Scan(returns, msg.header.frame_id, stamp_ns, middle_ns)
