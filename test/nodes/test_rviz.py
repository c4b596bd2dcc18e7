"""config/mde.rviz and config/nav2_voxel.yaml against what the nodes publish."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import Image, LaserScan
from visualization_msgs.msg import Marker

from mde_ros.config import NodeSettings
from mde_ros.datasets.bag_messages import OPTICAL_FRAME
from mde_ros.frame import Camera
from mde_ros.nodes.outputs import OUTPUTS, Outputs

CONFIG = Path(__file__).parents[2] / "config"
TYPES = {"image": Image, "scan": LaserScan, "status_text": Marker}
TYPES |= {topic: kind for topic, (kind, _) in OUTPUTS.items()}


@pytest.fixture
def manager():
    return yaml.safe_load((CONFIG / "mde.rviz").read_text())["Visualization Manager"]


@pytest.fixture
def displays(manager):
    return [d for d in manager["Displays"] if "Topic" in d]


def test_every_display_shows_a_topic_of_its_type(displays):
    for display in displays:
        kind = TYPES[display["Topic"]["Value"].removeprefix("/")]
        assert display["Class"] == f"rviz_default_plugins/{kind.__name__}"
    shown = {d["Topic"]["Value"].removeprefix("/") for d in displays}
    # As depth/colour, as points and in the text of the diagnostics.
    seen_elsewhere = {"depth/image_rect", "depth/camera_info", "disagreement"}
    assert shown == TYPES.keys() - seen_elsewhere


@pytest.mark.parametrize("published", ["reliable", "best_effort"])
def test_rviz_hears_every_topic_however_it_is_published(displays, published):
    """The middleware's own rules: a camera may be best effort, and so may our node."""
    offered = QoSProfile(depth=1, reliability=ReliabilityPolicy[published.upper()])
    for display in displays:
        topic = display["Topic"]
        asked = QoSProfile(
            depth=topic["Depth"],
            reliability=ReliabilityPolicy[topic["Reliability Policy"].upper().replace(" ", "_")],
            durability=DurabilityPolicy[topic["Durability Policy"].upper().replace(" ", "_")],
        )
        assert topic["History Policy"] == "Keep Last"
        compatible, reason = qos_check_compatible(offered, asked)
        assert compatible != QoSCompatibility.ERROR, (display["Name"], reason)
    strict = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    refused = qos_check_compatible(offered, strict)[0] == QoSCompatibility.ERROR
    assert refused == (published == "best_effort")  # so the rules can say no


def test_the_cloud_has_the_colours_that_rviz_is_told_to_use(displays):
    (points,) = (d for d in displays if d["Topic"]["Value"] == "/points")
    camera = Camera(4, 3, np.diag([4.0, 4.0, 1.0]))
    fields = Outputs(camera, NodeSettings())._points[0].fields
    assert points["Color Transformer"] == "RGB8" and "rgb" in {f.name for f in fields}
    assert points["Position Transformer"] == "XYZ"


def test_the_view_is_the_cameras_own_from_behind_and_above(manager):
    """RViz turns around z; in an optical frame z is ahead, x right and y down."""
    assert manager["Global Options"]["Fixed Frame"] == OPTICAL_FRAME
    view = manager["Views"]["Current"]
    yaw, pitch = view["Yaw"], view["Pitch"]
    out = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    eye = np.array([view["Focal Point"][axis] for axis in "XYZ"]) + view["Distance"] * out
    ahead = -out
    right = np.cross(ahead, [0, 0, 1]) / np.cos(pitch)
    up = np.cross(right, ahead)
    assert eye[2] < 0 and eye[1] < 0 and abs(eye[0]) < 0.01
    assert ahead[2] > 0.9 and right[0] > 0.99 and up[1] < -0.9


# Of nav2_costmap_2d, the same in humble, jazzy and kilted: plugins/{obstacle,voxel}_layer.cpp.
LAYER = {
    "plugin", "enabled", "footprint_clearing_enabled", "min_obstacle_height",
    "max_obstacle_height", "z_voxels", "origin_z", "z_resolution", "unknown_threshold",
    "mark_threshold", "combination_method", "publish_voxel_map", "observation_sources",
}  # fmt: skip
SOURCE = {
    "topic", "sensor_frame", "observation_persistence", "expected_update_rate", "data_type",
    "min_obstacle_height", "max_obstacle_height", "inf_is_valid", "marking", "clearing",
    "obstacle_max_range", "obstacle_min_range", "raytrace_max_range", "raytrace_min_range",
}  # fmt: skip


def test_the_voxel_layer_takes_our_cloud_with_parameters_that_nav2_has():
    costmap = yaml.safe_load((CONFIG / "nav2_voxel.yaml").read_text())
    costmap = costmap["local_costmap"]["local_costmap"]["ros__parameters"]
    assert costmap["plugins"] == ["depth_layer", "inflation_layer"]
    layer = dict(costmap["depth_layer"])
    source = layer.pop(layer["observation_sources"])
    assert layer.keys() <= LAYER and source.keys() <= SOURCE
    assert TYPES[source["topic"].removeprefix("/")].__name__ == source["data_type"]
    assert layer["z_voxels"] <= 16  # nav2_voxel_grid holds no more
    top_m = layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"]
    assert source["min_obstacle_height"] < source["max_obstacle_height"] <= top_m
    for range_m in ("obstacle", "raytrace"):
        assert source[f"{range_m}_min_range"] < source[f"{range_m}_max_range"]
    assert all(isinstance(source[k], float) for k in source if k.endswith(("range", "height")))
