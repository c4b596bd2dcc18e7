"""What another sensor measured → depth at the pixels of the image, lens distortion and all."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np

from mde_ros.datasets.bag_file import Bag, BagError
from mde_ros.datasets.bag_messages import depth_metres
from mde_ros.datasets.bag_pairs import camera_from
from mde_ros.datasets.bag_topics import Topics, first_message
from mde_ros.frame import Camera
from mde_ros.geometry import points_to_depth, project, transform, unproject


class DepthRegistration:
    """Depth images → depth (H, W) float32 metres at the pixels of the image, 0 = none.

    Depth of the image's own frame and camera is taken as it is; otherwise it is projected.
    """

    def __init__(self, bag: Bag, topics: Topics) -> None:
        assert topics.truth is not None
        self._path, self._topics = bag.path, topics
        self._units_per_m = _units_per_m(bag, topics.truth)
        self._own: Camera | None = None
        if topics.truth_info and topics.truth_info != topics.camera_info:
            info = first_message(bag, topics.truth_info)
            self._own = camera_from(bag, topics.truth_info, info)

    def __call__(
        self, message: Any, image: Any, camera: Camera, T_image_depth: np.ndarray | None
    ) -> np.ndarray:
        """The depth of one message.

        Args:
            message: of the depth topic.
            image: message of the image, of which the frame is told when it cannot be done.
            camera: that of the image.
            T_image_depth: None when it is not known.

        Raises:
            BagError: when the depth is of another camera and its place or camera is not known.
            ImageError: when it is no depth.
        """
        depth_m, T, own = depth_metres(message, self._units_per_m), T_image_depth, self._own
        same_size = depth_m.shape == (camera.height, camera.width)
        same_optics = same_size and (own is None or np.allclose(own.K, camera.K, rtol=1e-3))
        if same_optics and (T is None or np.allclose(T, np.eye(4), atol=1e-6)):
            return depth_m
        if T is None or own is None:
            raise BagError(
                f"{self._path}: depth on {self._topics.truth} is {_size(depth_m)} in frame"
                f" {message.header.frame_id!r}, the image {camera.width}x{camera.height} in frame"
                f" {image.header.frame_id!r}, and there is no"
                f" {'transform between them' if own else 'camera_info of the depth'} in the bag"
            )
        if depth_m.shape != (own.height, own.width):
            raise BagError(
                f"{self._path}: depth on {self._topics.truth} is {_size(depth_m)}, but"
                f" {self._topics.truth_info} says {own.width}x{own.height}"
            )
        return project_depth(depth_m, own, camera, T)


def project_depth(
    depth_m: np.ndarray, source: Camera, target: Camera, T_target_source: np.ndarray
) -> np.ndarray:
    """Depth (h, w) of one camera → depth (H, W) at the pixels of another, 0 = none.

    The nearest point wins a pixel. Where the target has finer pixels, a measurement covers as
    many of them as one pixel of the source does. The source is taken as undistorted.
    """
    points = unproject(depth_m, source)[depth_m > 0]
    size = (target.width, target.height)
    finer = max(1.0, target.focal_px / source.focal_px)
    coarse = target.undistorted().resized(*(max(1, round(s / finer)) for s in size))
    depth = points_to_depth(transform(T_target_source, points), coarse)
    depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    if target.is_distorted:
        y, x = np.mgrid[: target.height, : target.width].astype(np.float64)
        ideal = _ideal_pixels(np.stack([x.ravel(), y.ravel()], 1), target).astype(np.float32)
        maps = ideal.reshape(target.height, target.width, 2)
        depth = cv2.remap(depth, maps[..., 0], maps[..., 1], cv2.INTER_NEAREST)
    return depth


def points_to_image_depth(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Sparse depth (H, W) float32 of points (N, 3) at the pixels of a camera with its lens.

    As geometry.points_to_depth, which takes the camera as undistorted.
    """
    if not camera.is_distorted:
        return points_to_depth(points, camera)
    ideal_camera = camera.undistorted()
    points = np.asarray(points, np.float64)
    points = points[np.isfinite(points).all(1) & (points[:, 2] > 0)]
    if not len(points):
        return np.zeros((camera.height, camera.width), np.float32)
    ideal, z = project(points, ideal_camera)
    lens = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
    D = camera.D[:4] if lens is cv2.fisheye else camera.D
    bent = lens.projectPoints(points[:, None], np.zeros(3), np.zeros(3), camera.K, D)[0][:, 0]
    inside = (bent > -1).all(1) & (bent < (camera.width, camera.height)).all(1)
    bent, ideal, z = bent[inside], ideal[inside], z[inside]
    # Far outside its view a lens model bends back into the image: such a pixel leads elsewhere.
    real = np.abs(_ideal_pixels(bent, camera) - ideal).max(1, initial=0) < 1
    rays = (bent[real] - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]]
    z = z[real, None]
    return points_to_depth(np.hstack([rays * z, z]), ideal_camera)


def _ideal_pixels(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """Where pixels (N, 2) of a distorted image lie in the undistorted one: (N, 2)."""
    if not len(pixels):
        return pixels
    if camera.distortion_model == "equidistant":
        ideal = cv2.fisheye.undistortPoints(pixels[:, None], camera.K, camera.D[:4], P=camera.K)
    else:
        ideal = cv2.undistortPoints(pixels[:, None], camera.K, camera.D, P=camera.K)
    return ideal[:, 0]


def _size(depth: np.ndarray) -> str:
    return f"{depth.shape[1]}x{depth.shape[0]}"


def _units_per_m(bag: Bag, depth: str) -> float:
    """1000, unless the RealSense SDK has recorded another unit."""
    sensor = re.match(r"/device_\d+/sensor_\d+", depth)
    topic = f"{sensor[0]}/option/Depth Units/value" if sensor else ""
    return round(1 / first_message(bag, topic).data, 3) if topic in bag.topics else 1000.0
