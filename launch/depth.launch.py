"""Starts the depth node: ros2 launch mde_ros depth.launch.py image:=/camera/image_raw …

Each parameter of the node is an argument as well: one that is given overrules params_file.
"""

import dataclasses
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription
from mde_ros.config import NodeSettings
from mde_ros.nodes.process import dds_environment

CONFIG = Path(get_package_share_directory("mde_ros")) / "config"
# Empty: not passed on, so params_file or the node's own default counts.
PARAMETERS = {
    **{f.name: ("", f.metadata["help"]) for f in dataclasses.fields(NodeSettings)},
    "autostart": ("true", "configure and activate without a lifecycle manager"),
    "use_sim_time": ("", "take the time from /clock"),
}
ARGUMENTS = {
    "image": ("image", "topic of the camera image; its base name where it comes compressed"),
    "camera_info": ("camera_info", "topic of the camera's calibration"),
    "namespace": ("", "namespace of the node and of its relative topics"),
    "name": ("depth_node", "name of the node"),
    "params_file": (str(CONFIG / "depth.yaml"), "parameters of the node"),
    "log_level": ("info", "debug, info, warn or error"),
    **PARAMETERS,
}


def start(context: LaunchContext) -> list:
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    node = LifecycleNode(
        package="mde_ros",
        executable="depth_node",
        name=value["name"],
        namespace=value["namespace"],
        parameters=[
            value["params_file"],
            {name: yaml.safe_load(value[name]) for name in PARAMETERS if value[name]},
        ],
        remappings=[(topic, value[topic]) for topic in ("image", "camera_info")],
        ros_arguments=["--log-level", value["log_level"]],
        output="screen",
    )
    return [*(SetEnvironmentVariable(*item) for item in dds_environment().items()), node]


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
