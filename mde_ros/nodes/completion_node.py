"""The completion node: the depth node, and a LiDAR whose points its network completes."""

from __future__ import annotations

import sys

from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan, PointCloud2

from mde_ros.config import CompletionSettings, NodeSettings
from mde_ros.nodes.depth_node import DepthNode
from mde_ros.nodes.laser_pose import LaserPose
from mde_ros.nodes.process import run
from mde_ros.nodes.scan_statistics import ScanStatistics
from mde_ros.nodes.scan_stream import ScanStream

KINDS = {"LaserScan": LaserScan, "PointCloud2": PointCloud2}


class CompletionNode(DepthNode):
    """Runs DepthPipeline on every image and the points of the scan nearest in time.

    What becomes of scans is told in scan_stream.py. Without the pose of the laser, from TF or from
    a parameter, nothing is published.
    """

    NAME = "completion_node"
    SETTINGS: type[NodeSettings] = CompletionSettings
    settings: CompletionSettings

    def check_model(self) -> None:
        """Refuse a model that knows no points.

        Raises:
            ValueError: saying what to use instead.
        """
        super().check_model()
        if not self.pipeline.runtime.spec.takes_points:
            raise ValueError(
                f"model: expected one that takes LiDAR points, {self.settings.model} does not;"
                " use model:=completion, or the depth node"
            )

    def subscribe(self) -> None:
        """Subscribe to scans, the velocity and TF as far as they are needed, and to the camera."""
        settings = self.settings
        self.scan_statistics = ScanStatistics(self._warn)
        self._pose = LaserPose(settings, self._tf_if_needed())
        self.scans = ScanStream(
            lambda: self.settings,
            self.resolve_topic_name("scan"),
            self._pose,
            self.scan_statistics,
        )
        self.hear(KINDS[settings.scan_type], "scan", self.scans.take_scan)
        if settings.deskew:
            self.hear(Odometry, "odom", self.scans.take_odometry)
        super().subscribe()

    def _tf_if_needed(self):
        settings = self.settings
        if settings.laser_to_camera and (settings.laser_to_base or not settings.deskew):
            return None
        try:
            from mde_ros.nodes.tf_tree import TfTree
        except ImportError as error:  # pip has no tf2_ros
            self._warn(f"TF cannot be used: {error}")
            return None
        tf = TfTree(self)
        self._while_active.callback(tf.close)
        return tf

    def statuses(self) -> list[DiagnosticStatus]:
        """What diagnostics tell of frames and of scans."""
        about = {"scan": self.resolve_topic_name("scan"), "laser_pose": self._pose.source}
        name = f"{self.get_fully_qualified_name()}: scans"
        device = self.pipeline.runtime.device
        limit = self.settings.max_disagreement
        return [*super().statuses(), self.scan_statistics.status(name, about, limit, device)]


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable; see process.run for its exit code."""
    return run(CompletionNode, args)


if __name__ == "__main__":
    sys.exit(main())
