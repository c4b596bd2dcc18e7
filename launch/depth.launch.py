"""Starts the depth node: ros2 launch mde_ros depth.launch.py image:=/camera/image_raw …"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

CONFIG = Path(get_package_share_directory("mde_ros")) / "config"
ARGUMENTS = {
    "image": ("image", "topic of the camera image; its base name where it comes compressed"),
    "camera_info": ("camera_info", "topic of the camera's calibration"),
    "namespace": ("", "namespace of the node and of its relative topics"),
    "name": ("depth_node", "name of the node"),
    "params_file": (str(CONFIG / "depth.yaml"), "parameters of the node"),
    "autostart": ("true", "configure and activate without a lifecycle manager"),
    "use_sim_time": ("false", "take the time from /clock"),
    "log_level": ("info", "debug, info, warn or error"),
}


def generate_launch_description() -> LaunchDescription:
    argument = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    node = LifecycleNode(
        package="mde_ros",
        executable="depth_node",
        name=argument["name"],
        namespace=argument["namespace"],
        parameters=[
            argument["params_file"],
            {
                name: ParameterValue(argument[name], value_type=bool)
                for name in ("autostart", "use_sim_time")
            },
        ],
        remappings=[(topic, argument[topic]) for topic in ("image", "camera_info")],
        ros_arguments=["--log-level", argument["log_level"]],
        output="screen",
    )
    profile = "FASTRTPS_DEFAULT_PROFILES_FILE"
    own = EnvironmentVariable(profile, default_value=str(CONFIG / "fastdds.xml"))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ),
            SetEnvironmentVariable(profile, own),
            node,
        ]
    )
