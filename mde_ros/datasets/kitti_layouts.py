"""Where KITTI's files lie, as its users unpack them: each layout becomes a list of shots."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mde_ros.datasets import DatasetError
from mde_ros.datasets.image_files import image_size
from mde_ros.datasets.kitti_files import (
    Rig,
    camera_of,
    from_rectified,
    matrix,
    read_numbers,
    read_rig,
    read_split,
    read_stamps_ns,
)
from mde_ros.frame import Camera

PERIOD_NS = 100_000_000  # KITTI's 10 Hz, where there are no stamps
APART_NS = 3_600_000_000_000  # between recordings whose time is unknown: no neighbours in time
DAY = re.compile(r"\d{4}_\d\d_\d\d")
DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_sync")
PARTS = ("train", "val")
PACKAGES = ("data_depth_annotated", "data_depth_velodyne", "data_rgb")


@dataclass(frozen=True, eq=False)
class Shot:
    """One image and the files that belong to it; those that do not exist are None.

    Attributes:
        sweep: all LiDAR returns, a sweep (.bin) or a depth map (.png).
        ring: a depth map of one ring alone.
        truth: what the depth is measured against, a depth map or a sweep.
        size_from: the file that told the size of the image.
    """

    image: Path
    rig: Rig
    sweep: Path | None
    ring: Path | None
    truth: Path | None
    name: str
    stamp_ns: int
    size_from: str


def layout_of(path: Path) -> str | None:
    """Which layout a folder has: extract, selection, odometry, drives; None for another."""
    if (path / "image").is_dir() and (path / "calib.json").is_file():
        return "extract"
    if (path / "image").is_dir() and (path / "intrinsics").is_dir():
        return "selection"
    if (path / "sequences").is_dir() or (path / "image_2").is_dir():
        return "odometry"
    if _drives_in(path) or (path / PACKAGES[0]).is_dir():
        return "drives"
    return None


# ---- a small extract: image/, depth64/ (all rings), depth1/ (one), calib.json --------------------


def extract_shots(path: Path) -> list[Shot]:
    """Consecutive frames whose returns are projected already."""
    calibration = path / "calib.json"
    try:
        values = json.loads(calibration.read_text(encoding="utf-8"))
        camera = Camera(values["width"], values["height"], np.array(values["K"], float))
        rig = Rig(camera, np.array(values["T_cam_velo"], float).reshape(4, 4))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{calibration}: expected K, T_cam_velo, width and height ({error!r})"
        ) from None
    shots = []
    for i, image in enumerate(_images(path / "image")):
        rings, ring = (
            _if_there(path / folder / f"{image.stem}.png") for folder in ("depth64", "depth1")
        )
        name = f"{path.name}/{image.stem}"
        shots.append(Shot(image, rig, rings, ring, rings, name, i * PERIOD_NS, "calib.json"))
    return shots


# ---- depth_selection: val_selection_cropped, test_depth_*_anonymous ------------------------------


def selection_shots(path: Path) -> list[Shot]:
    """Single frames of the depth benchmarks, with the intrinsics of each.

    Files are called DRIVE_image_INDEX_image_02.png and alike, or INDEX.png in the test sets.
    """
    images, shots = _images(path / "image"), []
    width, height = image_size(images[0])
    for i, image in enumerate(images):
        intrinsics = path / "intrinsics" / f"{image.stem}.txt"
        try:
            K = np.loadtxt(intrinsics).reshape(3, 3)
        except (OSError, ValueError):
            found = "another" if intrinsics.is_file() else "no such file"
            raise DatasetError(f"{intrinsics}: expected 9 numbers, got {found}") from None
        sweep, truth = (
            _if_there(path / kind / f"{image.stem.replace('_image_', f'_{kind}_', 1)}.png")
            for kind in ("velodyne_raw", "groundtruth_depth")
        )
        rig = Rig(camera_of(K, width, height, intrinsics), None)
        name = f"{path.name}/{image.stem}"
        shots.append(Shot(image, rig, sweep, None, truth, name, i * APART_NS, images[0].name))
    return shots


# ---- odometry: sequences/00/image_2, calib.txt, times.txt, velodyne; poses/00.txt ----------------


def odometry_shots(path: Path, sequences: Sequence[str]) -> list[Shot]:
    """Sequences of the odometry benchmark: one folder, or those below sequences/, [] for all."""
    if (path / "image_2").is_dir():
        folders = [path]
    else:
        named = [path / "sequences" / name for name in sequences]
        folders = named or _folders(path / "sequences")
    shots = []
    for number, folder in enumerate(folders):
        images = _images(folder / "image_2")
        calibration, times = folder / "calib.txt", folder / "times.txt"
        numbers = read_numbers(calibration)
        P = matrix(numbers, "P2", calibration, 3, 4)
        width, height = image_size(images[0])
        camera, T_camera_velo = camera_of(P[:, :3], width, height, calibration), None
        if "Tr" in numbers:
            T = np.vstack([matrix(numbers, "Tr", calibration, 3, 4), [0, 0, 0, 1]])
            T_camera_velo = from_rectified(P) @ T
        rig = Rig(camera, T_camera_velo)
        try:
            stamps = np.rint(np.loadtxt(times, ndmin=1) * 1e9).astype(np.int64).tolist()
        except (OSError, ValueError):
            stamps = []
        if len(stamps) < len(images):
            raise DatasetError(
                f"{times}: expected {len(images)} times in seconds, as there are images,"
                f" got {len(stamps) if times.is_file() else 'no such file'}"
            )
        for image, stamp_ns in zip(images, stamps):
            sweep = _if_there(folder / "velodyne" / f"{image.stem}.bin")
            name, stamp_ns = f"{folder.name}/{image.stem}", stamp_ns + number * APART_NS
            shots.append(Shot(image, rig, sweep, None, sweep, name, stamp_ns, images[0].name))
    return shots


def read_poses(sequence: Path) -> np.ndarray | None:
    """T_world_camera (N, 4, 4) of the left colour camera of an odometry sequence, if published.

    The published poses are those of camera 0; the world is its first frame.
    """
    file = sequence.parent.parent / "poses" / f"{sequence.name}.txt"
    if not file.is_file():
        return None
    values = np.loadtxt(file, ndmin=2)
    T = np.tile(np.eye(4), (len(values), 1, 1))
    T[:, :3] = values.reshape(-1, 3, 4)
    calibration = sequence / "calib.txt"
    P = matrix(read_numbers(calibration), "P2", calibration, 3, 4)
    return T @ np.linalg.inv(from_rectified(P))


# ---- raw recordings, alone or with data_depth_annotated and data_depth_velodyne ------------------


class _Places:
    """Where the files of drives are looked for: in the path, the packages in or beside it, in raw.

    Attributes:
        root: the folder of the days.
        only: the drives that the path itself names; empty for all.
        parts: of the depth benchmark.
    """

    def __init__(self, path: Path, raw: str | Path | None, part: str | None) -> None:
        self.only: set[str] = set()
        if path.name in PARTS:
            part, path = path.name, path.parent
        if DRIVE.fullmatch(path.name):
            self.only, path = {path.name}, path.parent
        if DAY.fullmatch(path.name):
            self.only, path = self.only or {p.name for p in _drives_in(path)}, path.parent
        around = [path, *(p / name for name in PACKAGES for p in (path, path.parent))]
        if raw is not None:
            around.insert(0, Path(raw).expanduser())
        self.root, self.bases = path, [p for p in around if p.is_dir()]
        self.part_chosen = part is not None
        self.parts = PARTS if part in (None, "all") else (part,)

    def find(self, drive: str, inner: str) -> Path | None:
        """The folder `inner` of a drive."""
        above = (base / p for base in self.bases for p in (*self.parts, drive[:10], ""))
        return next((p for a in above if (p := a / drive / inner).is_dir()), None)

    def images(self, drive: str, camera: int) -> Path:
        """The folder of a drive's images."""
        inner = f"image_{camera:02d}"
        found = self.find(drive, f"{inner}/data") or self.find(drive, inner)
        if found is None:
            raise DatasetError(
                f"{self.bases[0] / drive[:10] / drive / inner / 'data'}: expected the images of"
                " this drive there, found no such folder; name the folder of the raw recordings"
                " with raw"
            )
        return found

    def drives(self) -> list[str]:
        """Every drive there is."""
        found = {p.name for base in self.bases for p in _drives_in(base, self.parts)}
        return sorted(found & self.only if self.only else found)

    def ambiguous(self) -> bool:
        """Whether a part of the benchmark would have to be chosen."""
        present = [p for p in PARTS if any((base / p).is_dir() for base in self.bases)]
        return len(present) > 1 and not self.part_chosen and not self.only


def drive_shots(
    path: Path,
    split: str | Path | None,
    part: str | None,
    cameras: Sequence[str],
    raw: str | Path | None,
    truth: str,
) -> list[Shot]:
    """Recordings of KITTI raw and, where it is, their annotated depth.

    Without a split, these are all frames with annotated depth, or all frames if truth is velodyne
    or nothing is annotated.
    """
    places = _Places(path, raw, part)

    def annotated(drive: str, camera: int) -> Path | None:
        inner = f"proj_depth/groundtruth/image_{camera:02d}"
        return None if truth == "velodyne" else places.find(drive, inner)

    if split is not None:
        listed = read_split(Path(split).expanduser())
        frames = [f for f in listed if f[0] in places.only or not places.only]
        measured = any(annotated(*pair) for pair in dict.fromkeys(f[:2] for f in frames))
    else:
        every = [(drive, int(camera[-2:])) for drive in places.drives() for camera in cameras]
        folders = {pair: folder for pair in every if (folder := annotated(*pair))}
        measured = bool(folders)
        if measured and places.ambiguous():
            raise DatasetError(
                f"{places.root}: there are train and val; choose with part (train, val or all), or"
                " with a split"
            )
        folders = folders or {pair: places.images(*pair) for pair in every}
        frames = [(*pair, p.stem) for pair, folder in folders.items() for p in _images(folder)]
    if truth == "groundtruth" and not measured:
        raise DatasetError(
            f"{places.root}: expected {'|'.join(places.parts)}/DRIVE/proj_depth/groundtruth in it"
            f" or in {PACKAGES[0]}, found none"
        )
    recording = cache(lambda drive, camera: _Recording(places, drive, camera))
    hours = {drive: i * APART_NS for i, drive in enumerate(dict.fromkeys(f[0] for f in frames))}
    return [recording(d, c).shot(i, measured, hours[d]) for d, c, i in frames]


class _Recording:
    """The files of one camera of one drive."""

    def __init__(self, places: _Places, drive: str, camera: int) -> None:
        self.folder = f"image_{camera:02d}"
        self.name, day = f"{drive}/{self.folder}", drive[:10]
        images = places.images(drive, camera)
        self.image_folder, self.images = images, {p.stem: p for p in _images(images)}
        self.annotated = places.find(drive, f"proj_depth/groundtruth/{self.folder}")
        self.projected = places.find(drive, f"proj_depth/velodyne_raw/{self.folder}")
        self.velodyne = places.find(drive, "velodyne_points/data")
        days = [base / day for base in places.bases]
        calibrated = next((p for p in days if (p / "calib_cam_to_cam.txt").is_file()), days[0])
        self.rig = read_rig(calibrated, camera)
        stamps = images.parent / "timestamps.txt"
        self.stamps_ns = read_stamps_ns(stamps) if stamps.is_file() else []

    def shot(self, index: str, measured: bool, begin_ns: int) -> Shot:
        """One frame; its truth is the annotated depth or, where nothing is annotated, the sweep.

        Args:
            begin_ns: when the drive begins, if its time stamps are missing.
        """
        number = int(index)
        if index not in self.images:
            raise DatasetError(f"{self.image_folder / f'{index}.png'}: no such file")
        stamp_ns = begin_ns + number * PERIOD_NS
        if number < len(self.stamps_ns):
            stamp_ns = self.stamps_ns[number]
        sweep = _file(self.velodyne, index, ".bin")
        truth = _file(self.annotated, index, ".png") if measured else sweep
        return Shot(
            self.images[index],
            self.rig,
            sweep or _file(self.projected, index, ".png"),
            None,
            truth,
            f"{self.name}/{index}",
            stamp_ns,
            "calib_cam_to_cam.txt",
        )


# ---- what all of them need -----------------------------------------------------------------------


def _drives_in(path: Path, parts: Iterable[str] = PARTS) -> list[Path]:
    """Folders of drives: the path itself, in it, in its days, or in train/ and val/."""
    if DRIVE.fullmatch(path.name):
        return [path]
    inside = (path, *(p for p in _folders(path) if DAY.fullmatch(p.name) or p.name in parts))
    return [p for folder in inside for p in _folders(folder) if DRIVE.fullmatch(p.name)]


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def _images(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.glob("*") if p.suffix in (".png", ".jpg"))
    if not found:
        raise DatasetError(f"{folder}: expected .png or .jpg images, found none")
    return found


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _file(folder: Path | None, index: str, suffix: str) -> Path | None:
    return folder and _if_there(folder / f"{index}{suffix}")
