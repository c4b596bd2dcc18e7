"""What becomes of an image message: convert, call, publish. Needs no executor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import cv2
from rclpy.clock import Clock
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mde_ros.config import NodeSettings
from mde_ros.frame import Frame
from mde_ros.nodes.camera_stream import CameraStream
from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.diagnostics import Statistics
from mde_ros.nodes.monitor import Monitor
from mde_ros.nodes.outputs import Publishers
from mde_ros.pipeline import DepthPipeline

if TYPE_CHECKING:
    from mde_ros.nodes.scan_stream import ScanStream


class FramePath:
    """Takes camera_info and images; publishes what the pipeline says while somebody listens.

    A frame that cannot be used is dropped with a warning and counted by its reason.

    Args:
        settings: returns the present ones; `enabled` counts.
        stream: pairs images with camera_info.
        scans: pairs images with LiDAR points; None for a camera alone.
        clock: of the node.
    """

    def __init__(
        self,
        settings: Callable[[], NodeSettings],
        pipeline: DepthPipeline,
        publishers: Publishers,
        statistics: Statistics,
        clock: Clock,
        stream: CameraStream,
        scans: ScanStream | None,
    ) -> None:
        self._settings, self._pipeline, self._publishers = settings, pipeline, publishers
        self._statistics, self._clock, self.stream, self._scans = statistics, clock, stream, scans
        self.domain: tuple[str | None, float | None] = None, None  # see Prediction
        self.monitor = Monitor()

    def take_info(self, msg: CameraInfo) -> None:
        """Keep a camera_info, and process the image that waited for it."""
        image = self.stream.take_info(msg)
        if image is not None:
            self._take(image)

    def take_image(self, msg: Image | CompressedImage) -> None:
        """Process an image, unless it has to wait for its camera_info."""
        self._statistics.frames_in += 1
        self.give_up()
        self._take(msg)

    def give_up(self) -> None:
        """Drop the image that waits for its camera_info, if there is one."""
        error = self.stream.give_up()
        if error is not None:
            self._statistics.drop(error)

    def _take(self, msg: Image | CompressedImage) -> None:
        topics = self._publishers.wanted()
        if not self._settings().enabled:
            self._statistics.frames_disabled += 1
        elif not topics:
            self._statistics.frames_idle += 1
        else:
            try:
                self._process(msg, topics)
            except Rejected as error:
                if not self.stream.wait(msg, error):
                    self._statistics.drop(error)
            except (ValueError, RuntimeError, cv2.error) as error:
                self._statistics.drop(Rejected("inference_failed", str(error)))

    def _process(self, msg: Image | CompressedImage, topics: list[str]) -> None:
        """Convert, call, publish."""
        stamp_ns = Time.from_msg(msg.header.stamp).nanoseconds
        self._statistics.stamp(stamp_ns)
        self.stream.camera()  # without one, decoding would be in vain
        image = self.stream.rgb_of(msg)
        camera = self.stream.camera_of(image)
        ideal = self._pipeline.output_camera(camera)
        seen = self._scans.points_for(msg.header, ideal) if self._scans else None
        frame = Frame(image, camera, seen.points if seen else None, stamp_ns)

        prediction = self._pipeline(frame)

        self.domain = prediction.domain, prediction.domain_distance
        if prediction.disagreement is not None:
            self.monitor.take(prediction.disagreement, self._pipeline.alarm)
        rgb = partial(self._pipeline.rectify, frame)
        self._publishers.publish(topics, msg.header, ideal, prediction, rgb)
        self._statistics.published((self._clock.now().nanoseconds - stamp_ns) * 1e-9)
        if self._scans and seen:
            self._scans.compare(seen, prediction)
