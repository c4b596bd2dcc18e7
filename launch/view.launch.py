"""Starts RViz on what a node publishes: ros2 launch mde_ros view.launch.py image:=/cam/image_raw"""

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import OpaqueFunction
from launch.launch_context import LaunchContext
from launch_ros.actions import Node

from launch import LaunchDescription
from mde_ros.nodes.launching import SHARE, declare, end_all, large_messages, values
from mde_ros.nodes.outputs import OUTPUTS

ARGUMENTS = {
    "image": ("image", "topic of the camera image"),
    "camera_info": ("camera_info", "topic of the camera's calibration"),
    "scan": ("scan", "topic of the LiDAR"),
    "namespace": ("", "namespace of the node that is looked at"),
    "frame": ("camera_optical_frame", "fixed frame; other than the camera's own, it needs TF"),
    "config": (str(SHARE / "config" / "mde.rviz"), "what RViz shows"),
    "use_sim_time": ("false", "take the time from /clock"),
    "log_level": ("info", "debug, info, warn or error"),
}


def start(context: LaunchContext) -> list:
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("view: RViz is missing; apt install ros-$ROS_DISTRO-rviz2") from None
    value = values(context, ARGUMENTS)
    level = ["--log-level", value["log_level"]]
    common = {"namespace": value["namespace"], "ros_arguments": level, "output": "screen"}
    time = {"use_sim_time": yaml.safe_load(value["use_sim_time"])}
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", value["config"], "-f", value["frame"]],
        parameters=[time],
        remappings=[  # from the topics of mde.rviz, which are those of the root
            *((f"/{topic}", value[topic]) for topic in ("image", "scan")),
            *((f"/{topic}", topic) for topic in (*OUTPUTS, "status_text")),
        ],
        on_exit=end_all("RViz was closed"),
        **common,
    )
    status = Node(
        package="mde_ros",
        executable="status_text",
        parameters=[{"frame_id": value["frame"], **time}],
        remappings=[("camera_info", value["camera_info"])],
        respawn=True,
        **common,
    )
    return [*large_messages(), rviz, status]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start)])
