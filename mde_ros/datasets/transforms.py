"""Augmentations that move image, depth and camera together; all randomness comes from an rng.

The published sets (METHODS 0.5 and 4, put together in published.py): resize, flip, rotate, crops,
lighting, jitter. Beyond them, for cameras and rooms not seen in training: crop_resize (so the focal
length varies), and camera_look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mde_ros.frame import Camera

Rng = np.random.Generator

# PCA of ImageNet's colours (METHODS 0.5).
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, eq=False)
class View:
    """An image, what is known of its depth, and the camera they belong to.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth_m: (H, W) float32 metres, 0 = unknown.
        teacher_m: (H, W) float32 metres as a teacher sees it, 0 = unknown.
        camera: of this size.
        points: (N, 3) float32 metres in the camera's frame, what a LiDAR measured, if there is one.
    """

    image: np.ndarray
    truth_m: np.ndarray
    teacher_m: np.ndarray
    camera: Camera
    points: np.ndarray | None = None

    def mapped(self, change: Callable[[np.ndarray], np.ndarray], camera: Camera) -> View:
        """The same change on image and both depths, and the camera that belongs to it."""
        maps = (change(self.image), change(self.truth_m), change(self.teacher_m))
        return View(*maps, camera, self.points)


def warp(view: View, A: np.ndarray, camera: Camera) -> View:
    """Resample through the (2, 3) map source pixel → target pixel; depth takes the nearest.

    Pixels from outside are black and have no depth. Points stay: the caller turns them if need be.
    """
    size = (camera.width, camera.height)
    image = cv2.warpAffine(view.image, A, size, flags=cv2.INTER_LINEAR)
    truth, teacher = (
        cv2.warpAffine(d, A, size, flags=cv2.INTER_NEAREST) for d in (view.truth_m, view.teacher_m)
    )
    return View(image, truth, teacher, camera, view.points)


def turned(view: View, degrees: float) -> View:
    """Points rolled about the optical axis as warp rolls the image (fx = fy), counter-clockwise."""
    if view.points is None:
        return view
    R = np.eye(3, dtype=np.float32)
    R[:2, :2] = cv2.getRotationMatrix2D((0, 0), degrees, 1.0)[:, :2]
    return replace(view, points=view.points @ R.T)


def flip(view: View, rng: Rng) -> View:
    """Mirror left and right with probability one half."""
    if rng.random() < 0.5:
        return view
    K = view.camera.K.copy()
    K[0, 2] = view.camera.width - 1 - K[0, 2]
    view = view.mapped(lambda m: np.ascontiguousarray(m[:, ::-1]), replace(view.camera, K=K))
    if view.points is not None:
        view = replace(view, points=view.points * np.array([-1, 1, 1], np.float32))
    return view


def rotate(view: View, rng: Rng, degrees: float = 5.0) -> View:
    """Roll the camera about its optical axis by U(-degrees, degrees); depth values stay."""
    c = view.camera
    degrees = rng.uniform(-degrees, degrees)
    A = cv2.getRotationMatrix2D((c.K[0, 2], c.K[1, 2]), degrees, 1.0)
    return turned(warp(view, A, c), degrees)


def resize(view: View, width: int, height: int) -> View:
    """The whole view at another size: colours averaged or interpolated, depth of the nearest."""
    c, size = view.camera, (width, height)
    smooth = cv2.INTER_AREA if width < c.width else cv2.INTER_LINEAR
    image = cv2.resize(view.image, size, interpolation=smooth)
    truth, teacher = (
        cv2.resize(d, size, interpolation=cv2.INTER_NEAREST_EXACT)
        for d in (view.truth_m, view.teacher_m)
    )
    return View(image, truth, teacher, c.resized(*size), view.points)


def crop(view: View, left: int, top: int, width: int, height: int) -> View:
    """The width x height pixels from (left, top) on; the principal point moves along.

    Raises:
        ValueError: when the image is smaller.
    """
    c = view.camera
    if c.width < width or c.height < height:
        raise ValueError(f"crop: expected at least {width}x{height}, got {c.width}x{c.height}")
    window = np.s_[top : top + height, left : left + width]
    return view.mapped(lambda m: m[window], c.cropped(left, top, width, height))


def centre_crop(view: View, width: int, height: int) -> View:
    """The middle width x height pixels."""
    c = view.camera
    return crop(view, (c.width - width) // 2, (c.height - height) // 2, width, height)


def bottom_crop(view: View, left: int, width: int, height: int) -> View:
    """The lowest width x height pixels from column `left` on."""
    return crop(view, left, view.camera.height - height, width, height)


def crop_resize(
    view: View,
    rng: Rng,
    width: int,
    height: int,
    smallest: float = 0.5,
    degrees: float = 0.0,
    largest: float = 1.0,
) -> View:
    """A random window of the target's aspect ratio, resized to width x height, slightly rolled.

    The window spans `smallest` to `largest` of what fits, so the focal length in pixels varies.
    """
    c = view.camera
    fits = min(c.width / width, c.height / height)
    step = fits * rng.uniform(smallest, largest)  # source pixels per target pixel
    left = rng.uniform(0, max(c.width - step * width, 0))
    top = rng.uniform(0, max(c.height - step * height, 0))
    s = 1 / step
    # Pixel corners, not centres, scale: the same convention as Camera.resized.
    A = np.array([[s, 0, s * (0.5 - left) - 0.5], [0, s, s * (0.5 - top) - 0.5]])
    K = np.vstack([A, [0, 0, 1]]) @ c.K
    camera = replace(c, width=width, height=height, K=K)
    if degrees:
        centre = (float(K[0, 2]), float(K[1, 2]))
        degrees = rng.uniform(-degrees, degrees)
        A = cv2.getRotationMatrix2D(centre, degrees, 1.0) @ np.vstack([A, [0, 0, 1]])
    return turned(warp(view, A, camera), degrees)


def lighting(image: np.ndarray, rng: Rng, sigma: float = 0.1) -> np.ndarray:
    """PCA lighting noise on a float RGB image in 0..1 (METHODS 0.5)."""
    alpha = rng.normal(0, sigma, 3)
    return image + (EIGENVECTORS @ (alpha * EIGENVALUES)).astype(np.float32)


def jitter(image: np.ndarray, rng: Rng, strength: float = 0.4) -> np.ndarray:
    """Brightness, contrast and saturation in random order, each by U(-strength, strength).

    Float RGB in 0..1, not clamped (METHODS 0.5): out = lerp(image, reference, a).
    """
    for kind in rng.permutation(3):
        a = np.float32(rng.uniform(-strength, strength))
        if kind == 0:
            image = image * (1 - a)
        elif kind == 1:
            image = image * (1 - a) + a * np.float32((image @ GREY).mean())
        else:
            image = image * (1 - a) + a * (image @ GREY)[..., None]
    return image


def camera_look(image: np.ndarray, rng: Rng) -> np.ndarray:
    """What cameras do to a picture: gamma, colour cast, grey, blur, noise, JPEG; uint8 to uint8."""
    if rng.random() < 0.8:  # one table for brightness, contrast, gamma and cast of each channel
        gamma, gain, lift = rng.uniform(0.6, 1.6), rng.uniform(0.7, 1.35), rng.uniform(-0.08, 0.08)
        cast = rng.uniform(0.85, 1.15, 3)
        ramp = np.linspace(0, 1, 256) ** gamma
        table = np.clip((ramp[:, None] * cast * gain + lift) * 255, 0, 255).astype(np.uint8)
        image = cv2.LUT(image, table[None])
    if rng.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        a = rng.uniform(-0.5, 1.0) if rng.random() < 0.8 else 1.0
        image = cv2.addWeighted(image, 1 - a, grey, a, 0)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.35:
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(1, 12)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        coded = cv2.imencode(".jpg", image, quality)[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return image
