"""Cameras, points and poses in numpy: one definition for pipeline, nodes, data sets and tests.

`T_a_b` is a (4, 4) matrix that maps points of frame b into frame a. Optical frames have x right,
y down, z forward; pixel centres lie at integer coordinates.
"""

from __future__ import annotations

from functools import lru_cache
from sys import float_info

import cv2
import numpy as np

from mde_ros.frame import Camera


def rays(camera: Camera) -> np.ndarray:
    """Direction of every pixel with z = 1: (H, W, 3) float32; depth_m * rays is the point."""
    x = (np.arange(camera.width) - camera.K[0, 2]) / camera.K[0, 0]
    y = (np.arange(camera.height) - camera.K[1, 2]) / camera.K[1, 1]
    out = np.ones((camera.height, camera.width, 3), np.float32)
    out[..., 0] = x
    out[..., 1] = y[:, None]
    return out


def unproject(depth_m: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth (H, W) in metres along z → points (H, W, 3) float32 in the optical frame."""
    return rays(camera) * np.asarray(depth_m, np.float32)[..., None]


def project(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) in the optical frame → pixels (N, 2) float64 and depths (N,) in metres.

    Points at or behind the camera plane get NaN pixels. The camera is taken as undistorted.
    """
    points = np.asarray(points, np.float64).reshape(-1, 3)
    z = points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = points[:, :2] / np.where(z > 0, z, np.nan)[:, None]
    return uv * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2], z


def in_view(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of points (N, 3) the camera sees, and where: indices, rows and columns, each (M,) int.

    A pixel is that whose centre is nearest; the camera is taken as undistorted.
    """
    # As `project`, but by coordinates, which takes half the time: this runs twice per frame.
    points, K = np.asarray(points).reshape(-1, 3), camera.K
    (ahead,) = ((points[:, 2] > 0) & (points[:, 2] < np.inf)).nonzero()
    x, y, z = points[ahead].T.astype(np.float64)
    u, v = np.rint(x / z * K[0, 0] + K[0, 2]), np.rint(y / z * K[1, 1] + K[1, 2])
    # Compared as floats, which NaN, infinite and huge values survive; no integer would hold them.
    (inside,) = ((u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)).nonzero()
    return ahead[inside], v[inside].astype(np.int64), u[inside].astype(np.int64)


def points_to_depth(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Sparse depth (H, W) float32 of points (N, 3); the nearest wins a pixel, 0 = none."""
    depth = np.zeros((camera.height, camera.width), np.float32)
    seen, rows, columns = in_view(points, camera)
    z = np.asarray(points).reshape(-1, 3)[seen, 2]
    order = np.argsort(-z)  # far first, so that the nearest is written last
    depth[rows[order], columns[order]] = z[order]
    return depth


def transform(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) transform to points (..., 3)."""
    return points @ T[:3, :3].T + T[:3, 3]


def pose(translation: np.ndarray, quaternion_xyzw: np.ndarray) -> np.ndarray:
    """(4, 4) transform from a translation in metres and a quaternion x, y, z, w.

    Raises:
        ValueError: when the quaternion is zero or not finite.
    """
    q = np.asarray(quaternion_xyzw, np.float64)
    norm = np.linalg.norm(q)
    if not np.isfinite(norm) or norm < 1e-6:
        raise ValueError(f"pose: expected a quaternion of non-zero length, got {q.tolist()}")
    x, y, z, w = q / norm
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = np.asarray(translation, np.float64)
    return T


def quaternion(R: np.ndarray) -> np.ndarray:
    """(x, y, z, w) of unit length, w >= 0, of a rotation matrix (3, 3)."""
    # The eigenvector of the largest eigenvalue of Bar-Itzhack's matrix (2000).
    K = np.array([
        [R[0, 0] - R[1, 1] - R[2, 2], 0, 0, 0],
        [R[0, 1] + R[1, 0], R[1, 1] - R[0, 0] - R[2, 2], 0, 0],
        [R[0, 2] + R[2, 0], R[1, 2] + R[2, 1], R[2, 2] - R[0, 0] - R[1, 1], 0],
        [R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1], np.trace(R)],
    ])  # fmt: skip
    q = np.linalg.eigh(K)[1][:, -1]  # eigh reads the lower triangle
    return q if q[3] >= 0 else -q


def twist_motion(linear: np.ndarray, angular: np.ndarray, seconds: float) -> np.ndarray:
    """Where a body is after so many seconds (or was, before) at a constant velocity: (4, 4).

    Maps points of the body's frame then into its frame now. Both velocities, m/s and rad/s, are
    those in the body's own frame, as in nav_msgs/Odometry (the exponential map of SE(3)).
    """
    rate = float(np.linalg.norm(angular))
    angle = rate * seconds
    T = np.eye(4)
    if abs(angle) < 1e-9:
        T[:3, 3] = np.multiply(linear, seconds)
        return T
    axis = np.asarray(angular) / rate
    T[:3, :3] = cv2.Rodrigues(axis * angle)[0]
    sine, rest = np.sin(angle) / rate, (1 - np.cos(angle)) / rate
    along = axis * (axis @ linear)
    T[:3, 3] = sine * (linear - along) + rest * np.cross(axis, linear) + seconds * along
    return T


def interpolate_pose(
    T_first: np.ndarray, T_last: np.ndarray, share: np.ndarray | float
) -> np.ndarray:
    """Poses on the way from T_first at share 0 to T_last at share 1: (..., 4, 4) for share (...).

    Translation is linear, rotation about one axis at an even rate (slerp, the short way); shares
    beyond 0..1 go on likewise.
    """
    share = np.asarray(share, np.float64)[..., None, None]
    *axis, w = quaternion(T_first[:3, :3].T @ T_last[:3, :3])
    sine = float(np.linalg.norm(axis))
    angle = 2 * np.arctan2(sine, w) * share
    x, y, z = np.array(axis) / max(sine, 1e-300)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)  # Rodrigues
    T = np.zeros((*share.shape[:-2], 4, 4))
    T[..., :3, :3] = T_first[:3, :3] @ turn
    T[..., :3, 3] = T_first[:3, 3] + share[..., 0] * (T_last[:3, 3] - T_first[:3, 3])
    T[..., 3, 3] = 1
    return T


def transform_sweep(
    points: np.ndarray, share: np.ndarray, T_first: np.ndarray, T_last: np.ndarray
) -> np.ndarray:
    """Points (N, 3) of a moving sensor in one frame, each by the pose of its own moment.

    Args:
        points: in the sensor's frame.
        share: (N,) of the sweep at which each was measured, 0 = first, 1 = last.
        T_first, T_last: the sensor's frame into the one asked for, at those two moments.
    """
    if np.array_equal(T_first, T_last):
        return transform(T_first, points)
    T = interpolate_pose(T_first, T_last, share)
    return np.einsum("nij,nj->ni", T[:, :3, :3], points) + T[:, :3, 3]


def scan_to_points(
    ranges_m: np.ndarray,
    angle_min: float,
    angle_increment: float,
    range_min: float,
    range_max: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Laser ranges (N,) → points (M, 3) float32 in the laser frame (x forward, z up), rays (M,).

    Ray i looks at angle_min + i * angle_increment; `rays` says which of them each point is. Only
    finite range_min <= r <= range_max counts (REP 117), and never 0.
    """
    ranges = np.asarray(ranges_m, np.float64)
    low, high = max(range_min, float_info.min), min(range_max, float_info.max)
    with np.errstate(invalid="ignore"):
        (rays,) = ((ranges >= low) & (ranges <= high)).nonzero()
    directions = _ray_directions(float(angle_min), float(angle_increment), ranges.size)
    return (ranges[rays, None] * directions[rays]).astype(np.float32), rays


@lru_cache(maxsize=8)
def _ray_directions(angle_min: float, angle_increment: float, count: int) -> np.ndarray:
    """Unit vectors (count, 3) of a scan's rays, the same in every message of a laser."""
    angles = angle_min + angle_increment * np.arange(count)
    return np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], 1)


def undistort_maps(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Fixed-point maps for cv2.remap that remove the lens distortion, K unchanged."""
    size = (camera.width, camera.height)
    if camera.distortion_model == "equidistant":
        D = camera.D[:4].reshape(4, 1)
        return cv2.fisheye.initUndistortRectifyMap(
            camera.K, D, np.eye(3), camera.K, size, cv2.CV_16SC2
        )
    return cv2.initUndistortRectifyMap(camera.K, camera.D, np.eye(3), camera.K, size, cv2.CV_16SC2)


def undistorted_area(camera: Camera, maps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Where the undistorted image shows what the camera saw, not an invented border: (H, W) bool.

    True where all pixels that cv2.remap mixes lie in the camera's image.
    """
    full = np.full((camera.height, camera.width), 255, np.uint8)
    return cv2.remap(full, *maps, cv2.INTER_LINEAR) == 255


def undistort_depth(depth_m: np.ndarray, camera: Camera) -> np.ndarray:
    """A map (H, W) of a distorted camera at the pixels of the ideal one: the nearest, 0 = none."""
    return cv2.remap(depth_m, *_nearest_maps(camera), cv2.INTER_NEAREST)


@lru_cache(maxsize=4)
def _nearest_maps(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    # Fixed-point maps would cut, not round, to the nearest pixel.
    return cv2.convertMaps(*undistort_maps(camera), cv2.CV_32FC1)


def median_scale(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """The factor median(truth) / median(prediction) over pixels valid in both (Zhou et al. 2017).

    1.0 where there are none.
    """
    valid = (truth_m > 0) & (prediction_m > 0) & np.isfinite(truth_m) & np.isfinite(prediction_m)
    if not valid.any():
        return 1.0
    return median(truth_m[valid]) / median(prediction_m[valid])


def median(values: np.ndarray) -> float:
    """np.median of one or more values, in a third of the time."""
    half = values.size // 2
    parts = np.partition(values.ravel(), half)
    upper = float(parts[half])
    return upper if values.size % 2 else (float(parts[:half].max()) + upper) / 2


def to_millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Metres → uint16 millimetres; what does not fit in 65.5 m or is not finite becomes 0."""
    mm = np.rint(np.nan_to_num(depth_m, nan=0, posinf=0, neginf=0) * np.float64(1000))
    return np.where((mm > 0) & (mm <= 65535), mm, 0).astype(np.uint16)


def network_size(width: int, height: int, pixels: int, multiple: int = 4) -> tuple[int, int]:
    """Width and height of about `pixels` pixels that keep the aspect ratio of an image.

    Both are rounded to a multiple, so that every feature pyramid level has whole pixels.
    """
    scale = (pixels / (width * height)) ** 0.5
    return tuple(max(multiple, round(s * scale / multiple) * multiple) for s in (width, height))  # type: ignore[return-value]
