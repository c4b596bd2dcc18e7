"""KITTI: raw recordings, annotated depth and its selections, odometry, and small extracts of them.

Every layout gives the same samples: LiDAR returns as points in the camera's frame, measured depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.image_files import read_rgb_of
from mde_ros.datasets.kitti_files import depth_of, one_ring, returns
from mde_ros.datasets.kitti_layouts import (
    PARTS,
    Shot,
    drive_shots,
    extract_shots,
    layout_of,
    odometry_shots,
    read_poses,
    selection_shots,
)
from mde_ros.frame import Frame
from mde_ros.geometry import points_to_depth

POINTS = ("ring", "all", "none")
TRUTHS = ("auto", "groundtruth", "velodyne")


class Kitti:
    """Frames of KITTI in any of the layouts its users have on disk.

    Args:
        path: one of
            - raw recordings: the folder of 2011_09_26/…, a day in it, or one drive;
            - the depth benchmark: the folder of train/ and val/ (data_depth_annotated,
              data_depth_velodyne, merged or beside each other), with `raw` for its images;
            - depth_selection/val_selection_cropped, or a test set beside it;
            - odometry: the folder of sequences/, or one sequence;
            - an extract: image/, depth64/, depth1/, calib.json.
        points: LiDAR returns that the frames carry: of one ring, all, or none.
        row: which ring (see scans.ring); an extract holds only one.
        keep_given: leave the depth of pixels that the frame's points give in the truth.
        truth: of drives: annotated depth maps (groundtruth), the sweeps as they are (velodyne),
            or annotated depth where the data set has any (auto).
        split: text file that lists frames of drives, such as Eigen's (see kitti_files.read_split).
        part: of the depth benchmark, train, val or all; needed where there are both.
        cameras: of drives, image_02 (left), image_03 (right) or both; a split names its own.
        raw: folder of the raw recordings, where it is not `path`.
        sequences: of odometry, such as ("00", "01"); all by default.

    Raises:
        DatasetError: naming the file or folder that is missing, or the option that does not fit.
    """

    def __init__(
        self,
        path: str | Path,
        points: str = "ring",
        row: int = 9,
        keep_given: bool = False,
        truth: str = "auto",
        split: str | Path | None = None,
        part: str | None = None,
        cameras: str | Sequence[str] = "image_02",
        raw: str | Path | None = None,
        sequences: str | Sequence[str] | None = None,
    ) -> None:
        self.path = Path(path).resolve()
        self.name = self.path.name
        layout = layout_of(self.path)
        _check(self.path, "points", points, POINTS)
        _check(self.path, "truth", truth, TRUTHS)
        _check(self.path, "part", part, (None, *PARTS, "all"))
        cameras = _several(cameras)
        for camera in cameras:
            _check(self.path, "cameras", camera, ("image_02", "image_03"))
        if layout != "drives" and (split or part or raw or truth != "auto"):
            raise DatasetError(
                f"{path}: split, part, raw and truth belong to KITTI's drives, but this is"
                f" {layout or 'no KITTI layout'}; leave them out"
            )
        if layout != "odometry" and sequences is not None:
            raise DatasetError(f"{path}: sequences belong to KITTI odometry; leave it out")
        if layout == "drives":
            self.shots = drive_shots(self.path, split, part, cameras, raw, truth)
        elif layout == "odometry":
            self.shots = odometry_shots(self.path, _several(sequences))
        elif layout == "selection":
            self.shots = selection_shots(self.path)
        elif layout == "extract":
            self.shots = extract_shots(self.path)
        else:
            raise DatasetError(
                f"{path}: expected DATE/DRIVE/image_02 (raw), train/DRIVE/proj_depth, image/ and"
                " intrinsics/ (depth_selection), sequences/ (odometry), or image/ and calib.json;"
                " found none of them"
            )
        self.points, self.row, self.keep_given = points, row, keep_given

    def __len__(self) -> int:
        return len(self.shots)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.shots):
            raise IndexError(index)
        shot = self.shots[index]
        camera = shot.rig.camera
        image = read_rgb_of(shot.image, camera, shot.size_from)
        points = self._points(shot)
        truth_m = None if shot.truth is None else depth_of(shot.truth, shot.rig)
        if truth_m is not None and points is not None and not self.keep_given:
            truth_m = np.where(points_to_depth(points, camera) > 0, np.float32(0), truth_m)
        frame = Frame(image, camera, points, shot.stamp_ns)
        return Sample(frame, truth_m, shot.name)

    def pose(self, index: int) -> np.ndarray | None:
        """T_world_camera (4, 4) in metres, of the odometry sequences that have poses."""
        image = self.shots[index].image
        poses = read_poses(image.parent.parent) if image.parent.name == "image_2" else None
        return None if poses is None else poses[int(image.stem)]

    def _points(self, shot: Shot) -> np.ndarray | None:
        if self.points == "ring" and shot.ring is not None:
            return returns(shot.ring, shot.rig)
        if self.points == "none" or shot.sweep is None:
            return None
        points = returns(shot.sweep, shot.rig)
        return points if self.points == "all" else one_ring(points, shot.rig, self.row)


def _several(names: Any) -> list[str]:
    """None, one name or several; YAML takes 00 and 10 of a command line for numbers."""
    if names is None:
        return []
    names = names if isinstance(names, (list, tuple)) else [names]
    return [name if isinstance(name, str) else f"{name:02d}" for name in names]


def _check(path: Path, name: str, value: object, valid: Sequence[object]) -> None:
    if value not in valid:
        options = ", ".join(str(v) for v in valid if v is not None)
        raise DatasetError(f"{path}: {name}: expected one of {options}, got {value!r}")
