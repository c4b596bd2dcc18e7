"""RGB-D folders: rgb/NAME.jpg|png, depth/NAME.png (uint16 mm), intrinsics.json, pose/NAME.txt."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mde_ros.datasets import DatasetError, Sample
from mde_ros.frame import Camera, Frame


def read_camera(path: Path) -> Camera:
    """Camera from an intrinsics.json: fx fy cx cy width height, and D where there is one.

    Raises:
        DatasetError: naming the missing key.
    """
    try:
        v = json.loads(path.read_text(encoding="utf-8"))
        K = np.array([[v["fx"], 0, v["cx"]], [0, v["fy"], v["cy"]], [0, 0, 1.0]])
        return Camera(int(v["width"]), int(v["height"]), K, np.array(v.get("D", [])))
    except KeyError as error:
        raise DatasetError(
            f"{path}: expected the keys fx fy cx cy width height, {error} is missing"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{path}: {error}") from None


def read_rgb(path: Path, upright: bool = False) -> np.ndarray:
    """Image file → (H, W, 3) uint8 RGB.

    Args:
        upright: turn it as its EXIF orientation says; intrinsics and depth know nothing of that.

    Raises:
        DatasetError: when it cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DatasetError(f"{path}: not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class RgbdFolder:
    """One recording; frames in the order of their names, `period_ns` apart."""

    def __init__(self, path: str | Path, period_ns: int = 100_000_000) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.period_ns = period_ns
        self.camera = read_camera(self.path / "intrinsics.json")
        folder = self.path / "rgb"
        self.files = sorted(p for p in folder.glob("*") if p.suffix in (".jpg", ".png"))
        if not self.files:
            raise DatasetError(f"{folder}: expected NAME.jpg or NAME.png files, found none")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        file = self.files[index]
        image = read_rgb(file)
        if image.shape[:2] != (self.camera.height, self.camera.width):
            raise DatasetError(
                f"{file}: {image.shape[1]}x{image.shape[0]}, but intrinsics.json says"
                f" {self.camera.width}x{self.camera.height}"
            )
        frame = Frame(image, self.camera, stamp_ns=index * self.period_ns)
        return Sample(frame, self._depth_m(file.stem, image.shape[:2]), f"{self.name}/{file.stem}")

    def pose(self, index: int) -> np.ndarray | None:
        """T_world_camera (4, 4) in metres, where the folder has poses."""
        file = self.path / "pose" / f"{self.files[index].stem}.txt"
        return np.loadtxt(file).reshape(4, 4) if file.is_file() else None

    def _depth_m(self, stem: str, size: tuple[int, int]) -> np.ndarray | None:
        file = self.path / "depth" / f"{stem}.png"
        if not file.is_file():
            return None
        depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if depth is None or depth.dtype != np.uint16 or depth.shape != size:
            found = "no image" if depth is None else f"{depth.shape} {depth.dtype}"
            raise DatasetError(f"{file}: expected a uint16 PNG of {size} millimetres, got {found}")
        return depth.astype(np.float32) / 1000


class RgbdFolders:
    """A folder of RGB-D folders, one after the other; what `mde simulate` writes."""

    def __init__(self, path: str | Path, period_ns: int = 100_000_000) -> None:
        self.name = Path(path).resolve().name
        folders = sorted(p.parent for p in Path(path).glob("*/intrinsics.json"))
        self.parts = [RgbdFolder(p, period_ns) for p in folders]
        self.ends = list(np.cumsum([len(p) for p in self.parts]))

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.ends else 0

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        part = bisect.bisect_right(self.ends, index)
        if index < 0 or part == len(self.parts):
            raise IndexError(index)
        return self.parts[part][index - (self.ends[part - 1] if part else 0)]
