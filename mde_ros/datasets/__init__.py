"""Data sets: a bag is one like any other. open_dataset() picks the reader for a path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mde_ros.frame import Frame


class DatasetError(ValueError):
    """A data set that cannot be opened or read; the message names the file and what it lacks."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame with what is known about it.

    Attributes:
        frame: image, camera, LiDAR points if any.
        truth_m: (H, W) float32 metres, 0 = no measurement; None where nothing was measured.
        name: unique within the data set.
        moving: (H, W) bool, pixels of things that move by themselves; None where nobody knows.
    """

    frame: Frame
    truth_m: np.ndarray | None
    name: str
    moving: np.ndarray | None = None

    def has_truth(self) -> bool:
        """Whether anything was measured."""
        return self.truth_m is not None and bool((self.truth_m > 0).any())


class Dataset(Protocol):
    """A sequence of samples in time order."""

    name: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def __iter__(self) -> Iterator[Sample]: ...


BAG_SUFFIXES = (".mcap", ".db3", ".bag")


def is_rgbd(path: Path) -> bool:
    """Whether a path is an RGB-D folder or a folder of such."""
    one = (path / "rgb").is_dir() and (path / "intrinsics.json").is_file()
    return one or (path.is_dir() and any(path.glob("*/intrinsics.json")))


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: a file, a folder with metadata.yaml, or one with the file alone.

    Simulated clips may have bags beside them and are an RGB-D data set all the same.
    """
    if not path.is_dir():
        return path.suffix in BAG_SUFFIXES
    if (path / "metadata.yaml").is_file():
        return True
    return not is_rgbd(path) and any(p.suffix in (".mcap", ".db3") for p in path.iterdir())


def find_reader(path: Path) -> Callable[..., Dataset]:
    """What reads the data at a path, told by the names of what lies there.

    Raises:
        DatasetError: when it is a file of a kind that no reader knows.
    """
    if is_bag(path):
        from mde_ros.datasets.bag import BagDataset

        return BagDataset
    if is_rgbd(path):
        from mde_ros.datasets.rgbd_folder import RgbdFolder, RgbdFolders

        return RgbdFolder if (path / "rgb").is_dir() else RgbdFolders
    from mde_ros.datasets import cityscapes, kitti, nyu, scannet

    if kitti.layout_of(path):
        return kitti.Kitti
    if cityscapes.is_cityscapes(path):
        return cityscapes.Cityscapes
    if scannet.is_scannet(path):
        return scannet.ScanNet
    if reader := nyu.reader_of(path):
        return reader
    if path.is_dir():
        from mde_ros.datasets.images import ImageFolder

        return ImageFolder
    raise DatasetError(
        f"{path}: expected a bag ({', '.join(BAG_SUFFIXES)}), a folder with rgb/, depth/ and"
        " intrinsics.json, a folder of such folders, of images, of KITTI, Cityscapes or ScanNet, or"
        " NYU-v2 (.mat, .csv or a folder of .h5)"
    )


def open_dataset(path: str | Path, **options: Any) -> Dataset:
    """The data set at a path: a bag, RGB-D, simulated clips, a published set, a folder of images.

    Args:
        options: of the reader, such as the topics of a bag.

    Raises:
        DatasetError: when there is nothing at the path that any reader knows, or its reader does
            not take an option.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    reader = find_reader(path)
    known = [name for name in inspect.signature(reader).parameters if name != "path"]
    for name in options:
        if name not in known:
            raise DatasetError(
                f"{path}: expected options of {reader.__name__} ({', '.join(known)}), got {name};"
                " leave it out"
            )
    return reader(path, **options)
