"""LiDAR messages → points, and single rings of many.

Works on LaserScan and PointCloud2 as rosbags and as rclpy give them: only their fields are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mde_ros.frame import Camera
from mde_ros.geometry import scan_to_points, transform, transform_sweep, unproject

LONGEST_SWEEP_S = 1.0  # a message that says it took longer has its times in another unit
FLOATS = {7: "f4", 8: "f8"}  # sensor_msgs/PointField
# Time of a point after the message's stamp, as drivers name it; by datatype: dtype, seconds.
TIMES = {"t": {6: ("u4", 1e-9)}, "time": {7: ("f4", 1.0), 8: ("f8", 1.0)}}


class ScanError(ValueError):
    """A LiDAR message that contradicts itself, so that its points could lie anywhere."""


@dataclass(frozen=True, eq=False)
class Returns:
    """What one LiDAR message measured.

    Attributes:
        points: (N, 3) float32 metres in the LiDAR's frame (x forward, y left, z up).
        seconds: (N,) float64 after the message's stamp at which each was measured.
    """

    points: np.ndarray
    seconds: np.ndarray

    @property
    def sweep_s(self) -> tuple[float, float]:
        """The seconds of the first and of the last return; (0, 0) without any."""
        if not self.seconds.size:
            return 0.0, 0.0
        return float(self.seconds.min()), float(self.seconds.max())

    def seen_from(self, T_first: np.ndarray, T_last: np.ndarray) -> np.ndarray:
        """Points (N, 3) float32 in another frame, each by the pose at its own moment.

        Args:
            T_first, T_last: (4, 4) the LiDAR's frame into the other one, as they were at both
                ends of `sweep_s`.
        """
        if T_first is T_last:  # nobody moves
            return transform(T_first, self.points).astype(np.float32)
        first, last = self.sweep_s
        share = (self.seconds - first) / ((last - first) or 1.0)
        return transform_sweep(self.points, share, T_first, T_last).astype(np.float32)


def scan_returns(message: Any) -> Returns:
    """LaserScan → its returns; ray i was measured i * time_increment after the stamp.

    Raises:
        ScanError: when angles, bounds or times are no numbers, or the number of ranges is not
            that of the angles.
    """
    numbers = {
        name: float(getattr(message, name))
        for name in ("angle_min", "angle_max", "angle_increment", "time_increment", "range_min")
    }
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ScanError(f"scan: expected a finite {name}, got {value}")
    low, high = numbers["range_min"], float(message.range_max)
    if not low <= high:
        raise ScanError(f"scan: expected range_min <= range_max, got {low:g} and {high:g}")
    ranges = np.asarray(message.ranges, np.float64)
    step, span = numbers["angle_increment"], numbers["angle_max"] - numbers["angle_min"]
    # Drivers disagree on whether the last angle is that of the last ray, hence one more or less.
    apart = abs(span - step * (ranges.size - 1))
    if ranges.size and (apart > 1.5 * abs(step) or (step == 0 and ranges.size > 1)):
        raise ScanError(
            f"scan: expected ranges from {numbers['angle_min']:g} to {numbers['angle_max']:g} rad"
            f" by {step:g}, got {ranges.size} of them"
        )
    sweep_s = abs(numbers["time_increment"]) * ranges.size
    if sweep_s > LONGEST_SWEEP_S:
        raise ScanError(f"scan: expected a sweep within {LONGEST_SWEEP_S:g} s, got {sweep_s:g} s")
    points, rays = scan_to_points(ranges, numbers["angle_min"], step, low, high)
    return Returns(points, rays * numbers["time_increment"])


def cloud_returns(message: Any) -> Returns:
    """PointCloud2 of any layout → its finite points; the origin, which drivers give for none, is
    left out. Times are those of a field `t` (uint32 nanoseconds) or `time` (float seconds).

    Raises:
        ScanError: without floating-point x, y, z, or when the data is shorter than it says.
    """
    fields = {f.name: f for f in message.fields}
    order = ">" if message.is_bigendian else "<"
    columns = {}
    for name in ("x", "y", "z"):
        if name not in fields or fields[name].datatype not in FLOATS:
            raise ScanError(
                f"cloud: expected {name} as float32 or float64, it has"
                f" {', '.join(f'{f.name} (datatype {f.datatype})' for f in message.fields)}"
            )
        columns[name] = FLOATS[fields[name].datatype]
    unit = 0.0
    for name, kinds in TIMES.items():
        if not unit and name in fields and fields[name].datatype in kinds:
            columns[name], unit = kinds[fields[name].datatype]
            time = name
    layout = np.dtype(
        {
            "names": list(columns),
            "formats": [order + kind for kind in columns.values()],
            "offsets": [fields[name].offset for name in columns],
        }
    )
    height, width, step = message.height, message.width, message.point_step
    data = np.frombuffer(message.data, np.uint8)
    row_step = message.row_step if height > 1 else step * width
    needed = row_step * (height - 1) + step * width
    if step < layout.itemsize or row_step < step * width or data.size < needed:
        raise ScanError(
            f"cloud: expected {height} rows of {width} points of {layout.itemsize} bytes, got"
            f" point_step {step}, row_step {row_step} and {data.size} bytes"
        )
    if not height * width:
        return Returns(np.zeros((0, 3), np.float32), np.zeros(0))
    cloud: np.ndarray = np.ndarray((height, width), layout, data, strides=(row_step, step)).ravel()
    points = np.stack([cloud[name] for name in ("x", "y", "z")], 1).astype(np.float32)
    good = np.isfinite(points).all(1) & points.any(1)
    seconds = cloud[time][good] * unit if unit else np.zeros(int(good.sum()))
    if seconds.size and not np.ptp(seconds) <= LONGEST_SWEEP_S:
        raise ScanError(
            f"cloud: expected a sweep within {LONGEST_SWEEP_S:g} s, got {np.ptp(seconds):g} s"
        )
    return Returns(points[good], seconds.astype(np.float64))


def ring(
    points: np.ndarray,
    row: int = 9,
    top: float = 2.0,
    step: float = 0.4,
    columns: int = 1024,
    field: float = 90.0,
) -> np.ndarray:
    """One line of a many-line LiDAR: (N, 3) points, x forward and z up → (M, 3) of them.

    Of every azimuth the nearest return, from left to right. The defaults are those of FusionDepth
    (Feng et al., CoRL 2021), after Pseudo-LiDAR++: rows of 0.4° from +2° downwards, of which
    number 9 is kept, and 1024 columns over 90° ahead. It gives what lies outside to the outermost
    row and column and keeps the last return of a column; both are left out here.

    Args:
        row: which line, 0 is the highest.
        top: elevation at which row 0 begins, degrees.
        step: degrees of elevation of a row.
        columns: how many azimuths `field` degrees ahead are divided into.
    """
    x, y, z = np.asarray(points, np.float64).T
    distance = np.linalg.norm(points, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        elevation = np.degrees(np.arcsin(z / distance))
        rows = np.floor((top - elevation) / step)
        azimuth = np.degrees(np.arctan2(y, x))
        column = np.floor((field / 2 - azimuth) * columns / field)
        kept = np.flatnonzero((rows == row) & (column >= 0) & (column < columns))
    nearest_first = kept[np.argsort(distance[kept], kind="stable")]
    _, first = np.unique(column[nearest_first], return_index=True)
    return points[nearest_first[first]]


def pseudo_rings(depth_m: np.ndarray, camera: Camera, rings: int = 64) -> np.ndarray:
    """Which ring of a LiDAR each pixel of its projected depth came from: (H, W) int, -1 = none.

    Rings are equal steps of asin(y / |p|) between the lowest and the highest point, 0 the highest,
    as CompletionFormer (Zhang et al., CVPR 2023) tells them apart; `rings` is the lowest.

    Args:
        depth_m: (H, W) metres, 0 = none.
        camera: its camera, taken as undistorted.
    """
    labels = np.full(depth_m.shape, -1)
    hit = np.isfinite(depth_m) & (depth_m > 0)
    points = unproject(np.where(hit, depth_m, 0), camera)[hit].astype(np.float64)
    if len(points):
        pitch = np.arcsin(points[:, 1] / np.linalg.norm(points, axis=1))
        labels[hit] = np.rint((pitch - pitch.min()) * (rings / (np.ptp(pitch) or 1.0)))
    return labels
