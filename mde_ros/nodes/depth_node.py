"""The depth node: camera image and camera_info in; depth, point cloud and colours out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from mde_ros.config import NodeSettings
from mde_ros.nodes import parameters
from mde_ros.nodes.camera_stream import CameraStream
from mde_ros.nodes.diagnostics import Statistics
from mde_ros.nodes.frame_path import FramePath
from mde_ros.nodes.outputs import Publishers, qos
from mde_ros.nodes.process import run
from mde_ros.pipeline import DepthPipeline

if TYPE_CHECKING:  # without a LiDAR its messages need not be installed
    from mde_ros.nodes.scan_stream import ScanStream

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

DONE, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DepthNode(LifecycleNode):
    """Runs DepthPipeline on every image that comes while somebody listens.

    Unconfigured, it has parameters and nothing else. Configuring loads the model and creates the
    publishers; activating subscribes to the camera; what then becomes of an image is told in
    frame_path.py. The completion node differs in its settings and its scans.
    """

    NAME = "depth_node"
    SETTINGS: type[NodeSettings] = NodeSettings
    scans: ScanStream | None = None

    def __init__(self, **kwargs) -> None:
        super().__init__(self.NAME, **kwargs)
        self.settings, self._problem = parameters.declare(self, self.SETTINGS)
        parameters.follow(self, lambda: self.settings, self._apply)
        self.pipeline: DepthPipeline = None  # type: ignore[assignment]  # until configured
        self.statistics = Statistics(self._warn)
        self.outputs = Publishers(self, lambda: self.settings)
        self._while_configured, self._while_active = ExitStack(), ExitStack()

    def start(self) -> bool:
        """Configure and activate; whether both succeeded."""
        return self.trigger_configure() == DONE and self.trigger_activate() == DONE

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, run it once, create publishers and service; on failure keep nothing."""
        try:
            if self._problem:
                raise ValueError(self._problem)
            undo = self._while_configured.callback
            self.pipeline, self.statistics = DepthPipeline(self.settings), Statistics(self._warn)
            self.check_model()
            undo(self.outputs.close)
            self.outputs.open(self.pipeline.warm_up(), qos(self.settings.publish_reliability))
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
        """Subscribe and begin to publish diagnostics; on failure keep nothing."""
        try:
            self.subscribe()
        except Exception as error:  # rclpy would swallow it
            self.get_logger().error(f"cannot activate: {error}")
            self._while_active.close()
            return FAILED
        return super().on_activate(state)

    def subscribe(self) -> None:
        """Subscribe to the camera and start the timer of the diagnostics."""
        settings, undo = self.settings, self._while_active.callback
        # As image_transport does: remapping the base topic moves the compressed one with it.
        topic, kind = self.resolve_topic_name("image"), Image
        if settings.image_transport == "compressed":
            topic, kind = f"{topic}/compressed", CompressedImage
        self._frames = frames = FramePath(
            lambda: self.settings,
            self.pipeline,
            self.outputs,
            self.statistics,
            self.get_clock(),
            CameraStream(self.resolve_topic_name("camera_info"), settings.rectified),
            self.scans,
        )
        undo(frames.give_up)
        # camera_info first: when both are ready, the executor takes the older subscription's.
        self.hear(CameraInfo, "camera_info", frames.take_info)
        # The numbers in this event are wrong (Fast DDS 2.14); that it comes is right.
        lost = SubscriptionEventCallbacks(message_lost=lambda _: self.statistics.lost())
        try:
            image = self.hear(kind, topic, frames.take_image, event_callbacks=lost)
        except UnsupportedEventTypeError:  # some middlewares do not tell
            image = self.hear(kind, topic, frames.take_image)
        self._image_topic = image.topic_name
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self.create_timer(settings.diagnostics_period, self._on_timer, clock=steady)
        undo(self.destroy_timer, timer)

    def hear(self, kind: type, topic: str, callback: Callable, **options) -> Subscription:
        """Subscribe to the newest message of a topic while active."""
        profile = qos(self.settings.subscribe_reliability)
        subscription = self.create_subscription(kind, topic, callback, profile, **options)
        self._while_active.callback(self.destroy_subscription, subscription)
        return subscription

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the camera; the model stays loaded."""
        self._while_active.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back all that configuring and activating made."""
        self._while_active.close()
        self._while_configured.close()
        self.pipeline = None  # type: ignore[assignment]
        return DONE

    on_shutdown = on_error = on_cleanup  # the base class registers them by these names

    # What the completion node does otherwise

    def check_model(self) -> None:
        """Refuse a model that this node cannot use.

        Raises:
            ValueError: saying which one it can.
        """
        if not self.pipeline.runtime.spec.metric:
            raise ValueError(
                f"model: expected metric depth, {self.settings.model} is relative; `mde scale`"
                " puts a model that was trained on video into metres"
            )

    def statuses(self) -> list[DiagnosticStatus]:
        """What diagnostics tell."""
        runtime = self.pipeline.runtime
        about = {
            "image": self._image_topic,
            "model": runtime.spec.name or runtime.path.stem,
            "model_sha256": runtime.sha256,
            "runtime": runtime.name,
            "device": runtime.device,
            "defence": self.settings.defence,
        }
        domain, distance = self._frames.domain
        if domain is not None:
            about |= {"domain": domain, "domain_distance": f"{distance:.4g}"}
        name = self.get_fully_qualified_name()
        statuses = [self.statistics.status(f"{name}: frames", about)]
        defended = self.pipeline.defended
        if self.settings.defence == "monitor" and defended is not None:
            mask = {"mask": defended.path.name, "device": runtime.device}
            statuses.append(
                self._frames.monitor.status(f"{name}: monitor", mask, self.pipeline.alarm)
            )
        return statuses

    # Everything else

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)

    def _apply(self, settings: NodeSettings) -> None:
        if self.pipeline is not None:
            self.pipeline.settings = settings  # may refuse them
        self.settings = settings

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        result = self.set_parameters([Parameter("enabled", value=request.data)])[0]
        response.success, response.message = result.successful, result.reason
        return response

    def _on_timer(self) -> None:
        message = DiagnosticArray(status=self.statuses())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable; see process.run for its exit code."""
    return run(DepthNode, args)


if __name__ == "__main__":
    sys.exit(main())
