"""Files of KITTI (Geiger et al. 2013): calibration, LiDAR sweeps, time stamps, lists of frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mde_ros.datasets import DatasetError
from mde_ros.datasets.image_files import read_depth
from mde_ros.datasets.scans import ring
from mde_ros.frame import Camera
from mde_ros.geometry import points_to_depth, transform, unproject

DEPTH_PER_M = 256  # steps of KITTI's depth maps (uint16, 0 = no measurement)

# Camera 2 of 2011_09_26; other days differ by less than half a degree. It tells the rings of a
# depth map whose recording's own calibration is not at hand.
NOMINAL_T_CAMERA_VELO = np.array(
    [
        [0.0002, -0.9999, -0.0106, 0.0571],
        [0.0104, 0.0106, -0.9999, -0.0755],
        [0.9999, 0.0001, 0.0105, -0.2694],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def read_numbers(path: Path) -> dict[str, np.ndarray]:
    """Lines "NAME: numbers" of a calibration file; what is no number is left out.

    Raises:
        DatasetError: when the file is missing.
    """
    out = {}
    for line in _lines(path):
        name, _, rest = line.partition(":")
        try:
            out[name.strip()] = np.array(rest.split(), float)
        except ValueError:
            continue
    return out


def matrix(numbers: dict[str, np.ndarray], name: str, path: Path, *shape: int) -> np.ndarray:
    """The matrix of a name.

    Raises:
        DatasetError: when it is missing or has another number of values.
    """
    if name not in numbers or numbers[name].size != np.prod(shape):
        found = f"{numbers[name].size}" if name in numbers else "none"
        raise DatasetError(f"{path}: expected {np.prod(shape)} values of {name}, got {found}")
    return numbers[name].reshape(shape)


def camera_of(K: np.ndarray, width: int, height: int, path: Path) -> Camera:
    """The camera of a matrix K (3, 3), read from `path`.

    Raises:
        DatasetError: when no camera has it.
    """
    try:
        return Camera(width, height, K)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from None


def from_rectified(P: np.ndarray) -> np.ndarray:
    """T_camera_rectified0 of a camera with projection P = K [I | t] (3, 4); t in metres."""
    T = np.eye(4)
    T[:3, 3] = np.linalg.solve(P[:, :3], P[:, 3])
    return T


@dataclass(frozen=True, eq=False)
class Rig:
    """A camera and T_camera_velo (4, 4), None where it is unknown."""

    camera: Camera
    T_camera_velo: np.ndarray | None


def read_rig(folder: Path, index: int) -> Rig:
    """Rectified camera `index` of a day of raw recordings, and where the LiDAR is.

    Raises:
        DatasetError: naming the calibration file that is missing or damaged.
    """
    path, lidar = folder / "calib_cam_to_cam.txt", folder / "calib_velo_to_cam.txt"
    numbers = read_numbers(path)
    P = matrix(numbers, f"P_rect_{index:02d}", path, 3, 4)
    width, height = matrix(numbers, f"S_rect_{index:02d}", path, 2).astype(int)
    camera = camera_of(P[:, :3], int(width), int(height), path)
    if not lidar.is_file():
        return Rig(camera, None)
    R, T = np.eye(4), np.eye(4)
    R[:3, :3] = matrix(numbers, "R_rect_00", path, 3, 3)
    numbers = read_numbers(lidar)
    T[:3, :3] = matrix(numbers, "R", lidar, 3, 3)
    T[:3, 3] = matrix(numbers, "T", lidar, 3)
    return Rig(camera, from_rectified(P) @ R @ T)


def read_sweep(path: Path) -> np.ndarray:
    """All returns of one turn of the LiDAR, in its frame: (N, 3) float32 metres.

    Raises:
        DatasetError: when the file is missing or no list of (x, y, z, reflectance) float32.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    values = np.fromfile(path, np.float32)
    if values.size % 4:
        raise DatasetError(f"{path}: expected 4 float32 values per return, got {values.size}")
    return values.reshape(-1, 4)[:, :3]


def returns(path: Path, rig: Rig) -> np.ndarray:
    """LiDAR returns in front of the camera, in its frame: (N, 3) float32 metres.

    Args:
        path: a sweep (.bin), or a depth map (.png) of returns already projected.
    """
    camera = rig.camera
    if path.suffix == ".png":
        depth_m = read_depth(path, (camera.height, camera.width), DEPTH_PER_M)
        return unproject(depth_m, camera)[depth_m > 0]
    if rig.T_camera_velo is None:
        raise DatasetError(
            f"{path}: expected calib_velo_to_cam.txt in the folder of the day, which tells where"
            " the LiDAR is; got none"
        )
    points = transform(rig.T_camera_velo, read_sweep(path).astype(np.float64))
    return points[points[:, 2] > 0].astype(np.float32)


def depth_of(path: Path, rig: Rig) -> np.ndarray:
    """Depth (H, W) float32 metres, 0 = none, of a depth map (.png) or of a sweep (.bin)."""
    camera = rig.camera
    if path.suffix == ".png":
        return read_depth(path, (camera.height, camera.width), DEPTH_PER_M)
    return points_to_depth(returns(path, rig), camera)


def one_ring(points: np.ndarray, rig: Rig, row: int) -> np.ndarray:
    """Of returns in the camera's frame (N, 3), those of one row of scans.ring: (M, 3) float32."""
    T_camera_velo = NOMINAL_T_CAMERA_VELO if rig.T_camera_velo is None else rig.T_camera_velo
    line = ring(transform(np.linalg.inv(T_camera_velo), points.astype(np.float64)), row)
    return transform(T_camera_velo, line).astype(np.float32)


def read_stamps_ns(path: Path) -> list[int]:
    """Time stamps of a raw recording, one per line, in nanoseconds.

    Raises:
        DatasetError: naming the line that is no time.
    """
    out = []
    for number, line in enumerate(_lines(path), 1):
        try:
            out.append(int(np.datetime64(line.strip().replace(" ", "T"), "ns").astype(np.int64)))
        except ValueError:
            raise DatasetError(
                f"{path}, line {number}: expected a time, got {line.strip()!r}"
            ) from None
    return out


_DRIVE = r"(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4}_sync)"
_LISTED = (  # of Monodepth2 (folder index l|r), and all that begin with the path of an image
    re.compile(rf"{_DRIVE}\s+(?P<index>\d+)(\s+(?P<side>[lr]))?$"),
    re.compile(rf"{_DRIVE}/image_0(?P<camera>\d)/(data/)?(?P<index>\d+)\.\w+"),
)


def read_split(path: Path) -> list[tuple[str, int, str]]:
    """A list of frames → (drive, camera number, ten-digit index), in the list's order.

    Lines are "DATE/DRIVE INDEX l" (Monodepth2), or begin with the image's path
    "DATE/DRIVE/image_02/data/INDEX.png" (Eigen et al. as most projects carry it).

    Raises:
        DatasetError: naming the line that is neither.
    """
    out = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        found = _LISTED[0].search(line.strip()) or _LISTED[1].search(line)
        if found is None:
            raise DatasetError(
                f"{path}, line {number}: expected DATE/DRIVE INDEX l, or the path of an image such"
                f" as DATE/DRIVE/image_02/data/INDEX.png, got {line.strip()!r}"
            )
        parts = found.groupdict()
        camera = int(parts.get("camera") or (3 if parts.get("side") == "r" else 2))
        out.append((parts["drive"], camera, parts["index"].zfill(10)))
    if not out:
        raise DatasetError(f"{path}: expected a list of frames, got none")
    return out


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DatasetError(f"{path}: {reason}") from None
