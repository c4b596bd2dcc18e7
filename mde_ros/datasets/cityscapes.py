"""Cityscapes (Cordts et al. 2016): 30-frame snippets with cameras, stereo depth, instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.image_files import image_size, read_rgb_of
from mde_ros.frame import Camera, Frame

PERIOD_NS = 58_823_529  # 17 Hz
APART_NS = 3_600_000_000_000  # between sequences, which are no neighbours in time
PARTS = ("train", "val", "test")
IMAGES = ("leftImg8bit_sequence", "leftImg8bit")
DISPARITIES = ("disparity_sequence", "disparity")
MOVABLE = (24, 33)  # label ids from person to bicycle


def is_cityscapes(path: Path) -> bool:
    """Whether a path is the root that the packages were unpacked in."""
    return any((path / folder).is_dir() for folder in IMAGES)


class Cityscapes:
    """Frames of the left camera, in the order of cities, sequences and time.

    leftImg8bit_sequence (or leftImg8bit) and camera are needed. Truth comes from
    disparity_sequence or disparity, by stereo matching; `moving` from gtFine, where a frame has
    it: all instances of what can move by itself, parked cars too.

    Args:
        path: the root.
        part: train, val or test; needed where there are several.
        annotated: only the frames that gtFine is made for, the twentieth of each snippet.

    Raises:
        DatasetError: naming the folder or file that is missing or does not fit.
    """

    def __init__(self, path: str | Path, part: str | None = None, annotated: bool = False) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        folder = next(self.path / f for f in IMAGES if (self.path / f).is_dir())
        present = [p for p in PARTS if (folder / p).is_dir()]
        if part is None and len(present) == 1:
            part = present[0]
        if part is None or part not in present:
            raise DatasetError(
                f"{folder}: part: expected one of {', '.join(present or PARTS)}, got {part}"
            )
        self.part = part
        cameras = self.path / "camera" / part
        self.cameras: dict[tuple[str, str], list[int]] = {}  # annotated frames of a sequence
        for file in sorted(cameras.glob("*/*_camera.json")):
            city, sequence, number = _place(file)
            self.cameras.setdefault((city, sequence), []).append(number)
        if not self.cameras:
            raise DatasetError(f"{cameras}: expected CITY/*_camera.json, found none")
        self.files = sorted((folder / part).glob("*/*_leftImg8bit.png"))
        if annotated:
            self.files = [f for f in self.files if self._annotated(f) == _place(f)[2]]
        if not self.files:
            raise DatasetError(f"{folder / part}: expected CITY/*_leftImg8bit.png, found none")
        order = {key: i for i, key in enumerate(dict.fromkeys(_place(f)[:2] for f in self.files))}
        self.begins_ns = {key: i * APART_NS for key, i in order.items()}
        self.size = image_size(self.files[0])

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        file = self.files[index]
        city, sequence, number = _place(file)
        camera, baseline_m = self._camera(file)
        image = read_rgb_of(file, camera, "the first image")
        stamp_ns = self.begins_ns[city, sequence] + number * PERIOD_NS
        name = file.stem.removesuffix("_leftImg8bit")
        disparity = self._sixteen_bits(DISPARITIES, f"{city}/{name}_disparity.png")
        truth_m = None
        if disparity is not None:  # p = 256 d + 1, 0 = none
            pixels = np.maximum(disparity.astype(np.float32) - 1, 0) / 256
            near = np.maximum(pixels, 1e-6)
            truth_m = np.where(pixels > 0, baseline_m * camera.K[0, 0] / near, 0).astype(np.float32)
        instances = self._sixteen_bits(("gtFine",), f"{city}/{name}_gtFine_instanceIds.png")
        moving = None
        if instances is not None:  # label * 1000 + number, or the label alone of a group
            labels = np.where(instances >= 1000, instances // 1000, instances)
            moving = (labels >= MOVABLE[0]) & (labels <= MOVABLE[1])
        return Sample(Frame(image, camera, stamp_ns=stamp_ns), truth_m, f"{city}/{name}", moving)

    def _annotated(self, image: Path) -> int:
        """The annotated frame of the snippet of an image: the nearest with a camera."""
        city, sequence, number = _place(image)
        frames = self.cameras.get((city, sequence))
        if not frames:
            expected = self.path / "camera" / self.part / city / f"{city}_{sequence}_*_camera.json"
            raise DatasetError(f"{expected}: no such file, needed for {image.name}")
        return min(frames, key=lambda frame: abs(frame - number))

    def _camera(self, image: Path) -> tuple[Camera, float]:
        """The camera of an image, and the baseline of its stereo pair in metres."""
        city, sequence, _ = _place(image)
        name = f"{city}_{sequence}_{self._annotated(image):06d}_camera.json"
        file = self.path / "camera" / self.part / city / name
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            v, baseline_m = values["intrinsic"], float(values["extrinsic"]["baseline"])
            K = np.array([[v["fx"], 0, v["u0"]], [0, v["fy"], v["v0"]], [0, 0, 1.0]])
            return Camera(*self.size, K), baseline_m
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DatasetError(
                f"{file}: expected intrinsic (fx fy u0 v0) and extrinsic (baseline), {error!r}"
            ) from None

    def _sixteen_bits(self, folders: tuple[str, ...], inner: str) -> np.ndarray | None:
        """A 16-bit PNG of one of several packages, of the size of the images; None without one."""
        files = (self.path / folder / self.part / inner for folder in folders)
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            return None
        values = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16 or values.shape != self.size[::-1]:
            found = "no image" if values is None else f"{values.shape} {values.dtype}"
            raise DatasetError(f"{file}: expected a uint16 PNG of {self.size[::-1]}, got {found}")
        return values


def _place(file: Path) -> tuple[str, str, int]:
    """City, sequence and frame of CITY_SEQUENCE_FRAME_…"""
    try:
        city, sequence, frame = file.stem.split("_")[:3]
        return city, sequence, int(frame)
    except ValueError:
        raise DatasetError(f"{file}: expected a name CITY_SEQUENCE_FRAME_…") from None
