"""Data sets: a bag is one like any other. open_dataset() picks the reader for a path."""

from __future__ import annotations

from collections.abc import Iterator
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
    """

    frame: Frame
    truth_m: np.ndarray | None
    name: str


class Dataset(Protocol):
    """A sequence of samples in time order."""

    name: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def __iter__(self) -> Iterator[Sample]: ...


BAG_SUFFIXES = (".mcap", ".db3", ".bag")


def open_dataset(path: str | Path, **options: Any) -> Dataset:
    """The data set at a path: a bag, an RGB-D folder, simulated clips, or a folder of images.

    Raises:
        DatasetError: when there is nothing at the path that any reader knows.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    if path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file():
        from mde_ros.datasets.bag import BagDataset

        return BagDataset(path, **options)
    if (path / "rgb").is_dir() and (path / "intrinsics.json").is_file():
        from mde_ros.datasets.rgbd_folder import RgbdFolder

        return RgbdFolder(path, **options)
    if path.is_dir() and any(path.glob("*/intrinsics.json")):
        from mde_ros.datasets.rgbd_folder import RgbdFolders

        return RgbdFolders(path, **options)
    if path.is_dir():
        from mde_ros.datasets.images import ImageFolder

        return ImageFolder(path, **options)
    raise DatasetError(
        f"{path}: expected a bag ({', '.join(BAG_SUFFIXES)}), a folder with rgb/, depth/ and"
        " intrinsics.json, a folder of such folders, or a folder of images"
    )
