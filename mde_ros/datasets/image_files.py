"""Images and depth maps as files, for every data set that keeps one file per frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mde_ros.datasets import DatasetError
from mde_ros.frame import Camera


def read_rgb(path: Path, upright: bool = False) -> np.ndarray:
    """Image file → (H, W, 3) uint8 RGB.

    Args:
        upright: turn it as its EXIF orientation says; intrinsics and depth know nothing of that.

    Raises:
        DatasetError: when it is missing or cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imread(str(path), flags) if path.is_file() else None
    if image is None:
        found = "not a readable image" if path.is_file() else "no such file"
        raise DatasetError(f"{path}: {found}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_rgb_of(path: Path, camera: Camera, source: str) -> np.ndarray:
    """Image file → (H, W, 3) uint8 RGB of the camera's size.

    Args:
        source: where the camera's size was read, for the message.

    Raises:
        DatasetError: when it is missing, cannot be decoded or has another size.
    """
    image = read_rgb(path)
    if image.shape[:2] != (camera.height, camera.width):
        raise DatasetError(
            f"{path}: {image.shape[1]}x{image.shape[0]}, but {source} says"
            f" {camera.width}x{camera.height}"
        )
    return image


def read_depth(path: Path, size: tuple[int, int], per_m: float = 1000) -> np.ndarray:
    """16-bit PNG of `per_m` steps a metre, 0 = no measurement → (H, W) float32 metres.

    Args:
        size: (H, W) it must have.

    Raises:
        DatasetError: when it is missing, cannot be decoded, or has another type or size.
    """
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if depth is None or depth.dtype != np.uint16 or depth.shape != size:
        missing = "no image" if path.is_file() else "no such file"
        found = missing if depth is None else f"{depth.shape} {depth.dtype}"
        unit = "millimetres" if per_m == 1000 else f"1/{per_m:g} metres"
        raise DatasetError(f"{path}: expected a uint16 PNG of {size} {unit}, got {found}")
    return depth.astype(np.float32) / np.float32(per_m)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file.

    Raises:
        DatasetError: when it is missing or cannot be decoded.
    """
    height, width = read_rgb(path).shape[:2]
    return width, height
