"""The depth node: camera image and camera_info in; depth, point cloud and colours out."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool

from mde_ros.config import NodeSettings
from mde_ros.frame import Camera, Frame
from mde_ros.nodes import convert, parameters
from mde_ros.nodes.camera_stream import CameraStream
from mde_ros.nodes.convert import Outputs, Rejected
from mde_ros.nodes.diagnostics import Statistics
from mde_ros.nodes.process import run
from mde_ros.pipeline import DepthPipeline

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

RGB_FROM = {Image: convert.rgb_from_image, CompressedImage: convert.rgb_from_compressed}
OUTPUTS = {
    "depth/image_rect": (Image, Outputs.depth),
    "depth/camera_info": (CameraInfo, Outputs.camera_info),
    "points": (PointCloud2, Outputs.points),
    "depth/colour": (Image, Outputs.colour),
}
DONE, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DepthNode(LifecycleNode):
    """Runs DepthPipeline on every image that comes while somebody listens.

    Unconfigured, it has parameters and nothing else. Configuring loads the model and creates the
    publishers; activating subscribes to the camera. A frame that cannot be used is dropped with a
    warning and counted by its reason.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("depth_node", **kwargs)
        self.settings, self._problem = parameters.declare(self, NodeSettings)
        parameters.follow(self, lambda: self.settings, self._apply)
        self.pipeline: DepthPipeline = None  # type: ignore[assignment]  # until configured
        self.statistics = Statistics(self._warn)
        self._publish_on: dict = {}  # the publisher of each topic in OUTPUTS
        self._while_configured, self._while_active = ExitStack(), ExitStack()
        self._outputs: Outputs | None = None
        self._decoded: tuple = (None, None)  # the last message and its pixels

    def start(self) -> bool:
        """Configure and activate; whether both succeeded."""
        return self.trigger_configure() == DONE and self.trigger_activate() == DONE

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, run it once, create publishers and service; on failure keep nothing."""
        try:
            if self._problem:
                raise ValueError(self._problem)
            self.pipeline, self.statistics = DepthPipeline(self.settings), Statistics(self._warn)
            if not self.pipeline.runtime.spec.metric:
                raise ValueError(f"model: expected metric depth, {self.settings.model} is relative")
            _warm_up(self.pipeline)
            qos, undo = _qos(self.settings.publish_reliability), self._while_configured.callback
            for topic, (kind, _) in OUTPUTS.items():
                self._publish_on[topic] = self.create_lifecycle_publisher(kind, topic, qos)
                undo(self.destroy_lifecycle_publisher, self._publish_on[topic])
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
            undo(self.destroy_publisher, self._diagnostics)
            undo(self.destroy_service, self.create_service(SetBool, "~/enable", self._on_enable))
        except Exception as error:  # rclpy would swallow it; inference libraries share no base
            self.get_logger().error(f"cannot configure: {error}")
            self.on_cleanup(state)
            return FAILED
        runtime = self.pipeline.runtime
        self.get_logger().info(f"{runtime.path.name}: {runtime.name} on {runtime.device}")
        return DONE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera and begin to publish diagnostics; on failure keep nothing."""
        try:
            self._subscribe()
        except Exception as error:  # rclpy would swallow it
            self.get_logger().error(f"cannot activate: {error}")
            self._while_active.close()
            return FAILED
        return super().on_activate(state)

    def _subscribe(self) -> None:
        settings, undo = self.settings, self._while_active.callback
        qos = _qos(settings.subscribe_reliability)
        # As image_transport does: remapping the base topic moves the compressed one with it.
        topic, kind = self.resolve_topic_name("image"), Image
        if settings.image_transport == "compressed":
            topic, kind = f"{topic}/compressed", CompressedImage
        info_topic = self.resolve_topic_name("camera_info")
        self._stream = CameraStream(info_topic, settings.rectified)
        undo(self._give_up)
        # camera_info first: when both are ready, the executor takes the older subscription's.
        info = self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, qos)
        undo(self.destroy_subscription, info)
        # The numbers in this event are wrong (Fast DDS 2.14); that it comes is right.
        lost = SubscriptionEventCallbacks(message_lost=lambda _: self.statistics.lost())
        try:
            image = self.create_subscription(kind, topic, self._on_image, qos, event_callbacks=lost)
        except UnsupportedEventTypeError:  # some middlewares do not tell
            image = self.create_subscription(kind, topic, self._on_image, qos)
        self._image_topic = image.topic_name
        undo(self.destroy_subscription, image)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self.create_timer(settings.diagnostics_period, self._on_timer, clock=steady)
        undo(self.destroy_timer, timer)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the camera; the model stays loaded."""
        self._while_active.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back all that configuring and activating made."""
        self._while_active.close()
        self._while_configured.close()
        self._publish_on.clear()
        self.pipeline = self._outputs = None  # type: ignore[assignment]
        self._decoded = None, None
        return DONE

    on_shutdown = on_error = on_cleanup  # the base class registers them by these names

    # Frames

    def _on_camera_info(self, msg: CameraInfo) -> None:
        image = self._stream.take_info(msg)
        if image is not None:
            self._on_frame(image)

    def _on_image(self, msg: Image | CompressedImage) -> None:
        self.statistics.frames_in += 1
        self._give_up()
        self._on_frame(msg)

    def _on_frame(self, msg: Image | CompressedImage) -> None:
        topics = [
            t for t, publisher in self._publish_on.items() if publisher.get_subscription_count()
        ]
        if not self.settings.enabled:
            self.statistics.frames_disabled += 1
        elif not topics:
            self.statistics.frames_idle += 1
        else:
            try:
                self._process(msg, topics)
            except Rejected as error:
                if not self._stream.wait(msg, error):
                    self.statistics.drop(error)
            except (ValueError, RuntimeError, cv2.error) as error:
                self.statistics.drop(Rejected("inference_failed", str(error)))

    def _process(self, msg: Image | CompressedImage, topics: list[str]) -> None:
        """Convert, call, publish."""
        stamp_ns = Time.from_msg(msg.header.stamp).nanoseconds
        self.statistics.stamp(stamp_ns)
        self._stream.camera()  # without one, decoding would be in vain
        image = self._rgb_of(msg)
        frame = Frame(image, self._stream.camera_of(image), None, stamp_ns)

        depth_m = self.pipeline(frame).depth

        outputs = self._outputs_for(self.pipeline.output_camera(frame.camera))
        for topic in topics:
            _, fill = OUTPUTS[topic]
            message = fill(outputs, msg.header, depth_m, lambda: self.pipeline.rectify(frame))
            self._publish_on[topic].publish(message)
        self.statistics.published((self.get_clock().now().nanoseconds - stamp_ns) * 1e-9)

    def _rgb_of(self, msg: Image | CompressedImage) -> np.ndarray:
        """The pixels of a message, decoded once even if it waits for its camera_info."""
        if self._decoded[0] is not msg:
            self._decoded = msg, RGB_FROM[type(msg)](msg)
        return self._decoded[1]

    def _outputs_for(self, camera: Camera) -> Outputs:
        out = self._outputs
        if out is None or out.camera is not camera or out.settings is not self.settings:
            self._outputs = out = Outputs(camera, self.settings)
        return out

    def _give_up(self) -> None:
        """Drop the image that waits for its camera_info, if there is one."""
        error = self._stream.give_up()
        if error is not None:
            self.statistics.drop(error)

    # Everything else

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)

    def _apply(self, settings: NodeSettings) -> None:
        self.settings = settings
        if self.pipeline is not None:
            self.pipeline.settings = settings

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        result = self.set_parameters([Parameter("enabled", value=request.data)])[0]
        response.success, response.message = result.successful, result.reason
        return response

    def _on_timer(self) -> None:
        runtime, now = self.pipeline.runtime, self.get_clock().now().to_msg()
        about = {
            "image": self._image_topic,
            "model": runtime.spec.name or runtime.path.stem,
            "model_sha256": runtime.sha256,
            "runtime": runtime.name,
            "device": runtime.device,
        }
        name = f"{self.get_fully_qualified_name()}: frames"
        self._diagnostics.publish(self.statistics.message(name, about, now))


def _warm_up(pipeline: DepthPipeline) -> None:
    """Run the network once: the first time is slow, and weights may be unusable.

    Raises:
        ValueError: when the answer has no finite value at all, as with diverged weights.
    """
    camera = Camera(640, 480, np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1.0]]))
    optics = pipeline.optics(camera)
    image, sparse = pipeline.prepare(Frame(np.zeros((480, 640, 3), np.uint8), camera), optics)
    outputs = pipeline.runtime(image, optics.network.focal_px, sparse)
    if not np.isfinite(outputs["depth"]).any():
        path = pipeline.runtime.path
        raise ValueError(f"model: expected depth in metres, {path.name} answers NaN or inf only")
    pipeline.finish(outputs, optics)


def _qos(reliability: str) -> QoSProfile:
    return QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability.upper()])


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable; see process.run for its exit code."""
    return run(DepthNode, args)


if __name__ == "__main__":
    sys.exit(main())
