"""Plays a bag through a node and scores what comes back while it plays, until the bag has ended.

ros2 launch mde_ros replay.launch.py bag:=my.mcap json:=results.json rviz:=true

Arguments of the node's own launch file (model:=…, namespace:=…) can be given too; image:=… chooses
one of several cameras of the bag.
"""

import yaml
from launch.actions import OpaqueFunction, SetLaunchConfiguration
from launch.launch_context import LaunchContext

from launch import LaunchDescription
from mde_ros.datasets import open_dataset
from mde_ros.live.played import topics_of
from mde_ros.nodes.launching import declare, end_all, include, large_messages, python, values
from mde_ros.nodes.player import open_source

ARGUMENTS = {
    "bag": (None, "bag or RGB-D folder to be played"),
    "rate": ("1.0", "times as fast as recorded"),
    "node": ("depth", "depth or completion"),
    "json": ("", "results.json to be written at the end; empty: none"),
    "rviz": ("false", "whether to start RViz too"),
}


def start(context: LaunchContext) -> list:
    value, given = values(context, ARGUMENTS), context.launch_configurations
    choice = {"image_topic": given["image"]} if "image" in given else {}
    with open_source(value["bag"]) as source:
        topics = topics_of(source, open_dataset(value["bag"], **choice))
    told = {"image": topics.base, "camera_info": topics.heard_info, "use_sim_time": "true"}
    told |= {"image_transport": topics.transport, "frame": topics.frame or "camera"}
    if topics.scan:
        told |= {"scan": topics.heard_scan, "scan_type": topics.scan_type}

    namespace = f"/{given['namespace'].strip('/')}" if given.get("namespace") else ""
    watch = ["mde_ros.cli", "watch", value["bag"], "--listen", f"{namespace}/depth/image_rect"]
    watch += ["--image-topic", topics.image] if choice else []
    watch += ["--json", value["json"]] if value["json"] else []

    player = topics.player(value["bag"], float(value["rate"]))
    return [
        *(SetLaunchConfiguration(*item) for item in told.items()),
        *large_messages(),
        include(f"{value['node']}.launch.py"),
        *([include("view.launch.py")] if yaml.safe_load(value["rviz"]) else []),
        python("watch", watch),
        python("player", player, on_exit=end_all("the bag has ended")),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start)])
