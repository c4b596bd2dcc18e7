"""RGB-D folders: rgb/NAME.jpg|png, depth/NAME.png (uint16 mm), intrinsics.json, pose/NAME.txt.

Simulated ones have instance/NAME.png too: uint16, the object that each pixel shows; their scan.npz
says which objects move.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.image_files import read_depth, read_rgb_of
from mde_ros.frame import Camera, Frame

APART_NS = 3_600_000_000_000  # between recordings, which are no neighbours in time


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


class RgbdFolder:
    """One recording; frames in the order of their names, `period_ns` apart from `begin_ns` on."""

    def __init__(self, path: str | Path, period_ns: int = 100_000_000, begin_ns: int = 0) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.period_ns, self.begin_ns = period_ns, begin_ns
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
        image = read_rgb_of(file, self.camera, "intrinsics.json")
        stamp_ns = self.begin_ns + index * self.period_ns
        frame = Frame(image, self.camera, stamp_ns=stamp_ns)
        truth_m = self._depth_m(file.stem, image.shape[:2])
        return Sample(frame, truth_m, f"{self.name}/{file.stem}", self._moving(index))

    def pose(self, index: int) -> np.ndarray | None:
        """T_world_camera (4, 4) in metres, where the folder has poses."""
        file = self.path / "pose" / f"{self.files[index].stem}.txt"
        return np.loadtxt(file).reshape(4, 4) if file.is_file() else None

    def instance(self, index: int) -> np.ndarray | None:
        """The object that each pixel shows, (H, W) uint16, 0 = none; where a simulation says so."""
        file = self.path / "instance" / self.files[index].with_suffix(".png").name
        size = (self.camera.height, self.camera.width)
        return read_depth(file, size, per_m=1).astype(np.uint16) if file.is_file() else None

    def object_names(self, index: int) -> np.ndarray | None:
        """What the numbers 1, 2, … of `instance` are called; where a simulation says so."""
        return self._objects.get("object_names")

    @cached_property
    def _objects(self) -> dict[str, np.ndarray]:
        """What a simulation says of all its objects, as numbered in instance/."""
        file = self.path / "scan.npz"
        if not file.is_file():
            return {}
        with np.load(file) as scan:
            return {key: scan[key] for key in scan.files if key.startswith("object_")}

    def _moving(self, index: int) -> np.ndarray | None:
        """(H, W) bool; None where nobody says which objects move."""
        moving = self._objects.get("object_moving")
        if moving is None or (instance := self.instance(index)) is None:
            return None
        return np.isin(instance, np.flatnonzero(moving) + 1)

    def _depth_m(self, stem: str, size: tuple[int, int]) -> np.ndarray | None:
        file = self.path / "depth" / f"{stem}.png"
        return read_depth(file, size) if file.is_file() else None


class RgbdFolders:
    """A folder of RGB-D folders, one after the other; what `mde simulate` writes."""

    def __init__(self, path: str | Path, period_ns: int = 100_000_000) -> None:
        self.name = Path(path).resolve().name
        folders = sorted(p.parent for p in Path(path).glob("*/intrinsics.json"))
        self.parts = [RgbdFolder(p, period_ns, i * APART_NS) for i, p in enumerate(folders)]
        self.ends = list(np.cumsum([len(p) for p in self.parts]))

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.ends else 0

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        folder, within = self._at(index)
        return folder[within]

    def instance(self, index: int) -> np.ndarray | None:
        """As of RgbdFolder."""
        folder, within = self._at(index)
        return folder.instance(within)

    def object_names(self, index: int) -> np.ndarray | None:
        """As of RgbdFolder."""
        folder, within = self._at(index)
        return folder.object_names(within)

    def _at(self, index: int) -> tuple[RgbdFolder, int]:
        """The folder of a frame, and its number there."""
        part = bisect.bisect_right(self.ends, index)
        if index < 0 or part == len(self.parts):
            raise IndexError(index)
        return self.parts[part], index - (self.ends[part - 1] if part else 0)
