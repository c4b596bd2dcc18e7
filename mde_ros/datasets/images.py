"""Folders of photographs without depth, for distillation; their lenses are unknown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.image_files import read_rgb
from mde_ros.frame import Camera, Frame

SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolder:
    """Every image below a folder, in the order of their paths.

    Args:
        path: the folder.
        field_of_view_deg: assumed across the image's diagonal; 75 is a phone's main camera. It
            cancels out where only a teacher's answer to the same image is learnt.

    Raises:
        DatasetError: when there is no image.
    """

    def __init__(self, path: str | Path, field_of_view_deg: float = 75.0) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.files = sorted(p for p in self.path.rglob("*") if p.suffix.lower() in SUFFIXES)
        self.half_diagonal = float(np.tan(np.radians(field_of_view_deg) / 2))
        if not self.files:
            raise DatasetError(f"{self.path}: expected images ({', '.join(SUFFIXES)}), found none")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        file = self.files[index]
        image = read_rgb(file, upright=True)
        height, width = image.shape[:2]
        f = np.hypot(width, height) / 2 / self.half_diagonal
        K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]])
        return Sample(
            Frame(image, Camera(width, height, K)), None, str(file.relative_to(self.path))
        )
