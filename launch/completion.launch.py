"""Starts the completion node, camera and LiDAR: ros2 launch mde_ros completion.launch.py scan:=…

Each parameter of the node is an argument as well: one that is given overrules params_file.
"""

from launch import LaunchDescription
from mde_ros.config import CompletionSettings
from mde_ros.nodes.launching import lifecycle_node

TOPICS = {
    "image": "topic of the camera image; its base name where it comes compressed",
    "camera_info": "topic of the camera's calibration",
    "scan": "topic of the LiDAR, of the type that scan_type names",
    "odom": "topic of the odometry, for deskew",
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        lifecycle_node("completion_node", CompletionSettings, "completion.yaml", TOPICS)
    )
