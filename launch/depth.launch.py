"""Starts the depth node: ros2 launch mde_ros depth.launch.py image:=/camera/image_raw …

Each parameter of the node is an argument as well: one that is given overrules params_file.
"""

from launch import LaunchDescription
from mde_ros.config import NodeSettings
from mde_ros.nodes.launching import lifecycle_node

TOPICS = {
    "image": "topic of the camera image; its base name where it comes compressed",
    "camera_info": "topic of the camera's calibration",
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(lifecycle_node("depth_node", NodeSettings, "depth.yaml", TOPICS))
