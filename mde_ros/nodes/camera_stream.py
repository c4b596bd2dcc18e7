"""Pixels of an image and the camera they belong to: pairs images with camera_info."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mde_ros.frame import Camera
from mde_ros.nodes import convert
from mde_ros.nodes.convert import Rejected, camera_from_info

RGB_FROM = {Image: convert.rgb_from_image, CompressedImage: convert.rgb_from_compressed}


class CameraStream:
    """The newest camera_info counts for every image of its size.

    Drivers may send an image before its camera_info. So an image without a camera of its size waits
    for the camera_info of its own stamp, until the next image comes.

    Args:
        topic: name of the camera_info topic, for messages.
        rectified: whether the images are rectified, see convert.camera_from_info.
    """

    def __init__(self, topic: str, rectified: bool) -> None:
        self.topic, self.rectified = topic, rectified
        self._info: CameraInfo | None = None
        self._camera: Camera | None = None  # of _info, made when first needed
        self._waiting: tuple[Image | CompressedImage, Rejected] | None = None
        self._decoded: tuple = (None, None)  # the last message and its pixels

    def take_info(self, msg: CameraInfo) -> Image | CompressedImage | None:
        """Keep a camera_info; returns the image that waited for it, if one did."""
        self._info, self._camera = msg, None
        if self._waiting is None or self._waiting[0].header.stamp != msg.header.stamp:
            return None
        image, _ = self._waiting
        self._waiting = None
        return image

    def camera(self) -> Camera:
        """The camera of the newest camera_info, whatever the image's size.

        Raises:
            Rejected: no_camera_info or camera_info_invalid.
        """
        if self._info is None:
            raise Rejected(
                "no_camera_info",
                f"expected a message on {self.topic}, none has come;"
                " it must be published along with the images",
            )
        if self._camera is None:
            self._camera = camera_from_info(self._info, self.rectified)
        return self._camera

    def rgb_of(self, msg: Image | CompressedImage) -> np.ndarray:
        """The pixels of a message, decoded once even if it waits for its camera_info.

        Raises:
            Rejected: see convert.
        """
        if self._decoded[0] is not msg:
            self._decoded = msg, RGB_FROM[type(msg)](msg)
        return self._decoded[1]

    def camera_of(self, image: np.ndarray) -> Camera:
        """The camera of an (H, W, 3) image.

        Raises:
            Rejected: no_camera_info, camera_info_size or camera_info_invalid.
        """
        (height, width), camera = image.shape[:2], self.camera()
        if (width, height) != (camera.width, camera.height):
            raise Rejected(
                "camera_info_size",
                f"camera_info: expected the {width}x{height} of the image,"
                f" got {camera.width}x{camera.height}",
            )
        return camera

    def wait(self, msg: Image | CompressedImage, error: Rejected) -> bool:
        """Keep an image that camera_of rejected if its own camera_info may still come."""
        own = self._info is not None and self._info.header.stamp == msg.header.stamp
        if own or error.reason not in ("no_camera_info", "camera_info_size"):
            return False
        self._waiting = msg, error
        return True

    def give_up(self) -> Rejected | None:
        """Forget the image that waits; returns why it did, None if there is none."""
        waiting, self._waiting = self._waiting, None
        return None if waiting is None else waiting[1]
