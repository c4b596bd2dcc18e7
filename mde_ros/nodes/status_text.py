"""What our nodes tell on /diagnostics, as text in the scene: RViz alone has no display for it."""

from __future__ import annotations

import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from visualization_msgs.msg import Marker

from mde_ros.nodes.process import serve

KINDS = (": frames", ": scans", ": monitor")  # how the names of our statuses end
SHOWN = ("latency_p50_ms", "latency_p95_ms", "model", "runtime", "device")
COLOURS = {  # red, green, blue
    DiagnosticStatus.OK: (0.6, 1.0, 0.6),
    DiagnosticStatus.WARN: (1.0, 0.8, 0.2),
    DiagnosticStatus.ERROR: (1.0, 0.3, 0.3),
    DiagnosticStatus.STALE: (0.6, 0.6, 0.6),
}
ABOVE_M, AHEAD_M, LETTER_M, LINE_M = 0.5, 1.5, 0.08, 0.5
SHOWN_FOR_S = 5  # longer than the longest usual pause between two diagnostics


class StatusText(Node):
    """Publishes the statuses of the nodes in its namespace as text above the camera's view."""

    def __init__(self, **kwargs) -> None:
        super().__init__("status_text", **kwargs)
        about = ParameterDescriptor(description="where the text is until camera_info tells")
        frame_id = self.declare_parameter("frame_id", "camera_optical_frame", about)
        self._frame_id = frame_id.value
        self._places: dict[str, int] = {}  # name of a status → which text from the bottom
        camera = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, camera)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._publisher = self.create_publisher(Marker, "status_text", 10)

    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._frame_id = msg.header.frame_id

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        namespace = self.get_namespace().rstrip("/")
        for status in msg.status:
            if status.name.startswith(f"{namespace}/") and status.name.endswith(KINDS):
                place = self._places.setdefault(status.name, len(self._places))
                self._publisher.publish(self._marker(status, place))

    def _marker(self, status: DiagnosticStatus, place: int) -> Marker:
        values = {v.key: v.value for v in status.values}
        details = "  ".join(f"{key} {values[key]}" for key in SHOWN if key in values)
        marker = Marker(type=Marker.TEXT_VIEW_FACING, ns="diagnostics", id=place)
        marker.header.frame_id = self._frame_id  # and no stamp: the latest transform will do
        marker.text = "\n".join(filter(None, (status.name, status.message, details)))
        marker.pose.position.y = -ABOVE_M - place * LINE_M  # y points down in an optical frame
        marker.pose.position.z, marker.scale.z = AHEAD_M, LETTER_M
        marker.color.r, marker.color.g, marker.color.b = COLOURS[status.level]
        marker.color.a = 1.0
        marker.lifetime.sec = SHOWN_FOR_S
        return marker


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable; see process.serve for its exit code."""
    return serve(StatusText, args)


if __name__ == "__main__":
    sys.exit(main())
