"""The settings dataclass as ROS parameters: what they say, what they refuse."""

import dataclasses

import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from mde_ros.config import NodeSettings
from mde_ros.nodes.completion_node import CompletionNode
from mde_ros.nodes.depth_node import DepthNode

FIELDS = dataclasses.fields(NodeSettings)
LIVE = {
    "enabled": False,
    "min_depth": 0.5,
    "max_depth": 7.0,
    "point_stride": 4,
    "point_colour": False,
    "colour_max_depth": 3.0,
    "defence": "mask",
    "alarm_threshold": 0.3,
}


@pytest.mark.parametrize("kind", [DepthNode, CompletionNode])
def test_every_setting_is_a_parameter_with_its_default_text_and_bounds(bench, kind):
    bench.kind = kind
    node = bench.make()
    for f in dataclasses.fields(kind.SETTINGS):
        assert node.get_parameter(f.name).value == f.default
        described = node.describe_parameter(f.name)
        assert described.description == f.metadata["help"]
        assert described.read_only == (not f.metadata["live"])
        ranges = [*described.floating_point_range, *described.integer_range]
        if f.metadata["low"] is not None:
            assert (ranges[0].from_value, ranges[0].to_value) == (
                f.metadata["low"],
                f.metadata["high"],
            )
        for choice in f.metadata["choices"] or ():
            assert choice in described.additional_constraints


def test_values_from_the_command_line_arrive(bench):
    node = bench.make(["-p", "max_depth:=12.5", "-p", "point_stride:=3", "-p", "enabled:=false"])
    assert (node.settings.max_depth, node.settings.point_stride) == (12.5, 3)
    assert node.settings.enabled is False
    assert node.get_parameter("max_depth").value == 12.5


def test_a_whole_number_does_for_a_real_one(bench):
    assert bench.make(["-p", "max_depth:=12"]).get_parameter("max_depth").value == 12.0


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("modle:=default", ["modle", "valid:", "min_depth"]),
        ("threads:=-1", ["threads", "[0, 256]", "-1"]),
        ("threads:=many", ["threads", "int", "many"]),
        ("depth_encoding:=mono16", ["depth_encoding", "32FC1, 16UC1", "mono16"]),
        ("min_depth:=90.0", ["min_depth", "80.0", "90.0"]),
        ("max_depth:=.nan", ["max_depth", "nan"]),
        ("model:=/nowhere/at_all.onnx", ["model", "default", "/nowhere/at_all.onnx"]),
        ("runtime:=tensorflow", ["runtime", "onnxruntime", "tensorflow"]),
        ("device:=gpu", ["device", "cuda:N", "gpu"]),
    ],
)
def test_a_wrong_parameter_fails_configure_with_the_reason_and_nothing_stays(
    bench, wall, capfd, argument, words
):
    model = [] if argument.startswith("model:") else ["-p", f"model:={wall}"]
    node = bench.make([*model, "-p", argument])
    before = entities(node)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert entities(node) == before
    log = capfd.readouterr().err
    assert "cannot configure" in log and all(word in log for word in words)


def entities(node) -> list[list[str]]:
    return [
        sorted(p.topic_name for p in node.publishers),
        sorted(s.topic_name for s in node.subscriptions),
        sorted(s.srv_name for s in node.services),
        [t.timer_period_ns for t in node.timers],
    ]


def test_names_that_ros_itself_uses_are_not_refused(bench, wall):
    names = ["use_sim_time:=true", "start_type_description_service:=false"]
    names += ["qos_overrides./clock.subscription.depth:=3"]
    node = bench.make(["-p", f"model:={wall}", *(x for name in names for x in ("-p", name))])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_all_live_parameters_are_tried_here():
    assert set(LIVE) == {f.name for f in FIELDS if f.metadata["live"]}


@pytest.mark.parametrize("name", LIVE)
def test_a_live_parameter_changes_settings_and_pipeline_at_once(bench, wall, name):
    node = bench.start(wall)
    result = node.set_parameters([Parameter(name, value=LIVE[name])])[0]
    assert result.successful, result.reason
    assert getattr(node.settings, name) == LIVE[name]
    assert node.pipeline.settings is node.settings


@pytest.mark.parametrize(
    ("name", "value"), [("max_depth", 5000.0), ("max_depth", 0.05), ("point_stride", 0)]
)
def test_a_live_value_that_does_not_fit_is_refused_and_the_old_one_stays(bench, name, value):
    node = bench.make()
    before = node.settings
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful and name in result.reason
    assert node.settings is before
    assert node.get_parameter(name).value == getattr(before, name)


@pytest.mark.parametrize("name", [f.name for f in FIELDS if not f.metadata["live"]])
def test_other_parameters_are_read_only(bench, name):
    node = bench.make()
    value = node.get_parameter(name).value
    assert not node.set_parameters([Parameter(name, value=value)])[0].successful
