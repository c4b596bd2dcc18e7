"""Diagnostics as text in RViz: which, where and in what colour, by planted messages."""

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from robot import Robot, info_message
from visualization_msgs.msg import Marker

from mde_ros.nodes.status_text import StatusText


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


def status(name: str, level: bytes = DiagnosticStatus.OK, text: str = "30.0 frames/s", **values):
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=text, values=pairs)


def test_statuses_of_our_nodes_in_the_namespace_become_text_in_the_cameras_frame(robot):
    node = StatusText(
        context=robot.context,
        cli_args=["--ros-args", "-r", "__ns:=/front", "-p", "frame_id:=somewhere"],
        use_global_arguments=False,
    )
    robot.executor.add_node(node)
    heard: list[Marker] = []
    robot.node.create_subscription(Marker, "/front/status_text", heard.append, 10)
    info = robot.publisher(type(info_message(4, 4)), "/front/camera_info")
    diagnostics = robot.publisher(DiagnosticArray, "/diagnostics")
    robot.until(lambda: info.get_subscription_count() and diagnostics.get_subscription_count())
    robot.until(lambda: node._publisher.get_subscription_count())
    info.publish(info_message(4, 4))
    assert node._frame_id == "somewhere"
    robot.until(lambda: node._frame_id != "somewhere")

    message = DiagnosticArray()
    message.status = [
        status("/front/depth_node: frames", latency_p95_ms="31.00", model="student-fast"),
        status("/rear/depth_node: frames"),
        status("battery: charge"),
        status("/front/battery: charge"),
        status("/front/depth_node: scans", DiagnosticStatus.WARN, "no scans on /scan"),
    ]
    diagnostics.publish(message)
    robot.until(lambda: len(heard) >= 2)
    frames, scans = heard
    assert frames.text.splitlines() == [
        "/front/depth_node: frames",
        "30.0 frames/s",
        "latency_p95_ms 31.00  model student-fast",
    ]
    assert scans.text.splitlines() == ["/front/depth_node: scans", "no scans on /scan"]
    for marker in heard:
        assert (marker.header.frame_id, marker.header.stamp.sec) == ("cam", 0)
        assert (marker.type, marker.action) == (Marker.TEXT_VIEW_FACING, Marker.ADD)
        assert marker.pose.position.y < 0 < marker.pose.position.z  # above the view, before it
        assert marker.scale.z > 0 and marker.color.a == 1 and marker.lifetime.sec > 0
    assert frames.id != scans.id and frames.pose.position.y != scans.pose.position.y
    assert frames.color.g > frames.color.r and scans.color.r > scans.color.b
    assert len(heard) == 2
