"""NYU-v2 (Silberman et al. 2012): the labelled set, the authors' PNG pairs, frames in HDF5."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mde_ros.datasets import Dataset, DatasetError, Sample
from mde_ros.datasets.image_files import read_rgb
from mde_ros.frame import Camera, Frame

# The Kinect's colour camera, to which the published depth is registered.
CAMERA = Camera(
    640, 480, np.array([[518.857901, 0, 325.582449], [0, 519.469611, 253.736166], [0, 0, 1]])
)
APART_NS = 3_600_000_000_000  # one frame is not the next of another
EIGHT_BIT_M = 10 / 255  # a step of the training pairs' depth (METHODS 0.5)
LABELLED = "nyu_depth_v2_labeled.mat"


def reader_of(path: Path) -> Callable[..., Dataset] | None:
    """What reads a path: the .mat file or its folder, a csv list, a folder of .h5 files."""
    if path.suffix == ".mat" or (path / LABELLED).is_file():
        return NyuLabelled
    if path.suffix == ".csv":
        return NyuPairs
    if path.is_dir() and any(next(path.glob(p), None) for p in ("*.h5", "*/*.h5", "*/*/*.h5")):
        return NyuHdf5
    return None


class NyuLabelled:
    """The 1449 frames of nyu_depth_v2_labeled.mat.

    Args:
        path: the file, or its folder.
        part: train or test (654 frames) of splits.mat beside it; all frames by default.
        filled: depth with its holes filled, as published results use it, or as measured.

    Raises:
        DatasetError: naming the file or the field that is missing.
    """

    def __init__(self, path: str | Path, part: str | None = None, filled: bool = True) -> None:
        self.path = Path(path)
        self.path = self.path / LABELLED if self.path.is_dir() else self.path
        self.name = self.path.stem
        self.depth = "depths" if filled else "rawDepths"
        with _hdf5(self.path, "images", self.depth) as file:
            count = len(file["images"])
        self.frames = list(range(count)) if part is None else self._listed(part, count)

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.frames):
            raise IndexError(index)
        number = self.frames[index]
        with _hdf5(self.path, "images", self.depth) as file:
            image, depth_m = file["images"][number], file[self.depth][number]
        # MATLAB stores columns first: (3, W, H) and (W, H).
        return _sample(image.transpose(2, 1, 0), depth_m.T, index, f"{self.name}/{number + 1:04d}")

    def _listed(self, part: str, count: int) -> list[int]:
        from scipy.io import loadmat

        file, field = self.path.parent / "splits.mat", f"{part}Ndxs"
        if part not in ("train", "test"):
            raise DatasetError(f"{self.path}: part: expected train or test, got {part!r}")
        if not file.is_file():
            raise DatasetError(f"{file}: no such file; it lists the frames of {part}")
        numbers = loadmat(file).get(field, np.zeros(0)).ravel().astype(int) - 1
        if not numbers.size or numbers.min() < 0 or numbers.max() >= count:
            raise DatasetError(f"{file}: expected numbers from 1 to {count} in {field}")
        return numbers.tolist()


class NyuPairs:
    """Image and depth files listed in a csv: nyu2_train.csv, nyu2_test.csv of the authors' zip.

    Depth in 8 bits is v / 255 · 10 m (training), in 16 bits millimetres (test); METHODS 0.5.

    Args:
        path: the csv; its paths start at its folder or at the one above.

    Raises:
        DatasetError: naming the file that is missing, or the line that is no pair.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise DatasetError(f"{path}, line {number}: expected IMAGE,DEPTH, got {row}")
        if not rows:
            raise DatasetError(f"{path}: expected lines IMAGE,DEPTH, found none")
        folder = self.path.resolve().parent
        bases = [p for p in (folder, folder.parent) if (p / rows[0][0]).is_file()]
        if not bases:
            raise DatasetError(f"{folder / rows[0][0]}: no such file, nor from the folder above")
        self.pairs = [(bases[0] / image, bases[0] / depth) for image, depth in rows]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.pairs):
            raise IndexError(index)
        image, file = self.pairs[index]
        depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if file.is_file() else None
        if depth is None or depth.ndim != 2 or depth.dtype not in (np.uint8, np.uint16):
            found = f"{depth.shape} {depth.dtype}" if depth is not None else "no image"
            raise DatasetError(f"{file}: expected a grey PNG of 8 or 16 bits, got {found}")
        step_m = EIGHT_BIT_M if depth.dtype == np.uint8 else 0.001
        name = f"{image.parent.name}/{image.stem}"
        return _sample(read_rgb(image), depth * np.float32(step_m), index, name)


class NyuHdf5:
    """One .h5 per frame with `rgb` (3, H, W) and `depth` (H, W) in metres, as fast-depth has them.

    Args:
        path: a folder of such files, or of folders of them.
        part: train or val of a folder that has both.

    Raises:
        DatasetError: when the part is not chosen, or a file lacks a field.
    """

    def __init__(self, path: str | Path, part: str | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        present = [p for p in ("train", "val") if (self.path / p).is_dir()]
        if len(present) > 1 if part is None else part not in present:
            raise DatasetError(
                f"{path}: part: expected one of {', '.join(present) or 'none'}, got {part}"
            )
        folder = self.path / part if part else self.path
        self.files = sorted(folder.rglob("*.h5"))

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        path = self.files[index]
        with _hdf5(path, "rgb", "depth") as file:
            image, depth_m = file["rgb"][()], file["depth"][()]
        return _sample(image.transpose(1, 2, 0), depth_m, index, f"{path.parent.name}/{path.stem}")


def _hdf5(path: Path, *fields: str) -> Any:
    import h5py

    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise DatasetError(f"{path}: expected HDF5 (MATLAB 7.3), got another format") from None
    for field in fields:
        if field not in file:
            found = ", ".join(file)
            file.close()
            raise DatasetError(f"{path}: expected the field {field}, it has {found or 'none'}")
    return file


def _sample(image: np.ndarray, depth_m: np.ndarray, index: int, name: str) -> Sample:
    """A sample of an image (H, W, 3) uint8 and its depth (H, W), of the Kinect's proportions."""
    height, width = image.shape[:2]
    if depth_m.shape != (height, width):
        raise DatasetError(f"{name}: image is {width}x{height}, but its depth is {depth_m.shape}")
    if abs(width * CAMERA.height - height * CAMERA.width) > CAMERA.width:
        raise DatasetError(
            f"{name}: expected 640x480 or resized from it, got {width}x{height}; of a crop nobody"
            " knows the camera"
        )
    camera = CAMERA.resized(width, height)
    frame = Frame(np.ascontiguousarray(image), camera, stamp_ns=index * APART_NS)
    depth_m = np.nan_to_num(np.ascontiguousarray(depth_m, np.float32), posinf=0, neginf=0)
    return Sample(frame, depth_m, name)
