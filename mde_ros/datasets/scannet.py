"""ScanNet (Dai et al. 2017) as its SensReader exports it: color/, depth/, pose/, intrinsic/."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.image_files import image_size, read_depth, read_rgb_of
from mde_ros.frame import Camera, Frame

PERIOD_NS = 33_333_333  # the sensor's 30 Hz
APART_NS = 3_600_000_000_000  # between scenes, which are no neighbours in time


def is_scannet(path: Path) -> bool:
    """Whether a path is a scene, or a folder of scenes."""
    return (path / "color").is_dir() or (path.is_dir() and any(path.glob("*/color")))


@dataclass(frozen=True, eq=False)
class Scene:
    """What the frames of a scene share: two cameras with one centre, one attitude and two lenses.

    Attributes:
        camera: of the images.
        depth_camera: of the depth maps; None where there are none.
    """

    path: Path
    camera: Camera
    depth_camera: Camera | None

    def depth_m(self, stem: str) -> np.ndarray | None:
        """Depth (H, W) float32 metres of the image's pixels: what is seen in their direction."""
        file, own = self.path / "depth" / f"{stem}.png", self.depth_camera
        if own is None or not file.is_file():
            return None
        depth_m = np.pad(read_depth(file, (own.height, own.width)), 1)  # nothing around it
        c = self.camera
        u, v = np.arange(c.width), np.arange(c.height)
        cols = (u - c.K[0, 2]) / c.K[0, 0] * own.K[0, 0] + own.K[0, 2]
        rows = (v - c.K[1, 2]) / c.K[1, 1] * own.K[1, 1] + own.K[1, 2]
        cols = np.clip(np.rint(cols).astype(int), -1, own.width) + 1
        rows = np.clip(np.rint(rows).astype(int), -1, own.height) + 1
        return depth_m[rows[:, None], cols]


def read_scene(path: Path) -> Scene:
    """The cameras of a scene.

    Raises:
        DatasetError: naming the file that is missing, or that belongs to another size of image.
    """
    images, depths = frame_files(path), sorted((path / "depth").glob("*.png"))
    camera = _camera(path / "intrinsic" / "intrinsic_color.txt", images[0])
    own = _camera(path / "intrinsic" / "intrinsic_depth.txt", depths[0]) if depths else None
    return Scene(path, camera, own)


def frame_files(scene: Path) -> list[Path]:
    """The images of a scene in the order of their numbers, which need not have leading zeros.

    Raises:
        DatasetError: when there are none.
    """
    found = [p for p in (scene / "color").glob("*") if p.suffix in (".jpg", ".png")]
    if not found:
        raise DatasetError(f"{scene / 'color'}: expected NUMBER.jpg or NUMBER.png, found none")
    return sorted(found, key=lambda p: (len(p.stem), p.stem))


class ScanNet:
    """Frames of one scene or of many.

    Args:
        path: a scene, or a folder of scenes.
        split: text file that lists scenes, such as scannetv2_val.txt.

    Raises:
        DatasetError: naming the file that is missing or does not fit.
    """

    def __init__(self, path: str | Path, split: str | Path | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        if split is not None:
            scenes = _listed(self.path, Path(split).expanduser())
        elif (self.path / "color").is_dir():
            scenes = [self.path]
        else:
            scenes = sorted(p.parent for p in self.path.glob("*/color"))
        self._scenes: dict[Path, Scene] = {}
        self.frames = [
            (file, scene * APART_NS + i * PERIOD_NS)
            for scene, folder in enumerate(scenes)
            for i, file in enumerate(frame_files(folder))
        ]

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.frames):
            raise IndexError(index)
        file, stamp_ns = self.frames[index]
        folder = file.parent.parent
        scene = self._scenes[folder] = self._scenes.get(folder) or read_scene(folder)
        image = read_rgb_of(file, scene.camera, "the scene's first image")
        frame = Frame(image, scene.camera, stamp_ns=stamp_ns)
        return Sample(frame, scene.depth_m(file.stem), f"{scene.path.resolve().name}/{file.stem}")

    def pose(self, index: int) -> np.ndarray | None:
        """T_world_camera (4, 4) in metres; None where it is not given or was lost."""
        image = self.frames[index][0]
        file = image.parent.parent / "pose" / f"{image.stem}.txt"
        T = np.loadtxt(file).reshape(4, 4) if file.is_file() else np.full((4, 4), np.nan)
        return T if np.isfinite(T).all() else None


def _listed(path: Path, split: Path) -> list[Path]:
    if not split.is_file():
        raise DatasetError(f"{split}: no such file")
    return [path / line.strip() for line in split.read_text().splitlines() if line.strip()]


def _camera(path: Path, image: Path) -> Camera:
    """The camera of a 4x4 (or 3x3) matrix, of the size of an image that it belongs to."""
    try:
        K = np.loadtxt(path)[:3, :3]
    except (OSError, ValueError, IndexError):
        found = "another file" if path.is_file() else "no such file"
        raise DatasetError(f"{path}: expected a 4x4 matrix of numbers, got {found}") from None
    width, height = image_size(image)
    if not (0.4 < K[0, 2] / width < 0.6 and 0.4 < K[1, 2] / height < 0.6):
        raise DatasetError(
            f"{path}: its principal point ({K[0, 2]:g}, {K[1, 2]:g}) is not near the middle of"
            f" {image}, which is {width}x{height}; export images and intrinsics of one size"
        )
    try:
        return Camera(width, height, K)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from None
