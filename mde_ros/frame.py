"""Camera, Frame and Prediction: the records that cross borders inside the package (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

DISTORTION_MODELS = ("plumb_bob", "rational_polynomial", "equidistant")
COEFFICIENTS = (4, 5, 8, 12, 14)  # how many OpenCV's polynomial models take


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with optional lens distortion.

    Pixel centres lie at integer coordinates, as in OpenCV and ROS.

    Attributes:
        width, height: image size in pixels.
        K: (3, 3) float64, focal lengths and principal point in pixels.
        D: (n,) float64 distortion coefficients in OpenCV's order; empty or zeros for none.
        distortion_model: one of DISTORTION_MODELS.

    Raises:
        ValueError: on a size, matrix or model that no camera has.
    """

    width: int
    height: int
    K: np.ndarray
    D: np.ndarray = field(default_factory=lambda: np.zeros(0))
    distortion_model: str = "plumb_bob"

    def __post_init__(self) -> None:
        K = np.asarray(self.K, np.float64).reshape(3, 3)
        D = np.asarray(self.D, np.float64).ravel()
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "D", D)
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"camera: expected a positive size, got {self.width}x{self.height}")
        if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
            raise ValueError(
                f"camera: expected K with positive focal lengths, got fx={K[0, 0]} fy={K[1, 1]}"
                " (is the camera calibrated?)"
            )
        if not np.isfinite(D).all():
            raise ValueError("camera: expected finite distortion coefficients D")
        if self.is_distorted and self.distortion_model not in DISTORTION_MODELS:
            raise ValueError(
                f"camera: expected a distortion model of {', '.join(DISTORTION_MODELS)},"
                f" got {self.distortion_model!r}"
            )
        # Some drivers pad the four of equidistant with a zero.
        fisheye = self.distortion_model == "equidistant"
        if self.is_distorted and not (D.size >= 4 if fisheye else D.size in COEFFICIENTS):
            expected = "4" if fisheye else ", ".join(map(str, COEFFICIENTS))
            raise ValueError(
                f"camera: expected {expected} distortion coefficients for"
                f" {self.distortion_model}, got {D.size}"
            )

    @property
    def is_distorted(self) -> bool:
        """Whether straight lines come out bent, i.e. any coefficient is non-zero."""
        return bool(np.any(self.D != 0.0))

    @property
    def focal_px(self) -> float:
        """Geometric mean of the two focal lengths, in pixels."""
        return float(np.sqrt(self.K[0, 0] * self.K[1, 1]))

    def resized(self, width: int, height: int) -> Camera:
        """The same camera behind an image resized to width x height pixels."""
        sx, sy = width / self.width, height / self.height
        # A pixel centre at x covers [x - .5, x + .5], so the corner, not the centre, scales.
        S = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1.0]])
        return replace(self, width=width, height=height, K=S @ self.K)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The same camera behind the crop whose first pixel is (left, top)."""
        K = self.K.copy()
        K[0, 2] -= left
        K[1, 2] -= top
        return replace(self, width=width, height=height, K=K)

    def undistorted(self) -> Camera:
        """The ideal camera of the same K and no distortion."""
        return replace(self, D=np.zeros(0), distortion_model="plumb_bob")

    def same_as(self, other: Camera | None) -> bool:
        """Whether both describe the same optics and image size."""
        return other is not None and (
            self.width == other.width
            and self.height == other.height
            and self.distortion_model == other.distortion_model
            and np.array_equal(self.K, other.K)
            and np.array_equal(self.D, other.D)
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image and, if there is a LiDAR, its returns.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        camera: its camera, of the same size.
        points: (N, 3) float32 metres in the camera's optical frame (x right, y down, z forward).
        stamp_ns: time of exposure, nanoseconds.

    Raises:
        ValueError: when image, camera and points do not fit together.
    """

    image: np.ndarray
    camera: Camera
    points: np.ndarray | None = None
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        image, camera, points = self.image, self.camera, self.points
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"frame: expected an (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}"
            )
        if image.shape[:2] != (camera.height, camera.width):
            raise ValueError(
                f"frame: image is {image.shape[1]}x{image.shape[0]} but its camera"
                f" is {camera.width}x{camera.height}"
            )
        if points is not None and (points.ndim != 2 or points.shape[1] != 3):
            raise ValueError(f"frame: expected points (N, 3), got {points.shape}")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the pipeline says about one frame.

    Attributes:
        depth: (H, W) float32 metres along the optical axis, 0 where there is none.
        uncertainty: (H, W) float32, standard deviation in metres, if the network gives one.
        saliency: (H, W) float32 in 0..1, what the mask let through, if one was applied.
        domain: of a lifelong network, the name of the one whose head was taken.
        domain_distance: how far the image is from the mean of that domain, squared feature units.
        disagreement: of depth and what the network says without the mask, if both were asked; see
            defence.disagreement.
    """

    depth: np.ndarray
    uncertainty: np.ndarray | None = None
    saliency: np.ndarray | None = None
    domain: str | None = None
    domain_distance: float | None = None
    disagreement: float | None = None
