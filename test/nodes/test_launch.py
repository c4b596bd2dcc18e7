"""The launch file, with stand-ins for launch and launch_ros, which pip does not have."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mde_ros.config import NodeSettings
from mde_ros.nodes.process import PROFILE_VARIABLES

ROOT = Path(__file__).parents[2]


class Stated:
    """Stands for any action: keeps what it is made of."""

    def __init__(self, *args, **kwargs) -> None:
        self.args, self.kwargs = args, kwargs


class LaunchConfiguration(Stated):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


@pytest.fixture
def launch(monkeypatch):
    """launch(name=value, …) → the arguments declared, the environment set, the node started."""
    kinds = {
        name: type(name, (Stated,), {})
        for name in ("DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable")
    }
    node_kind = type("LifecycleNode", (Stated,), {})
    modules = {
        "launch": {"LaunchContext": dict, "LaunchDescription": list},
        "launch.actions": kinds,
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"LifecycleNode": node_kind},
        "ament_index_python.packages": {"get_package_share_directory": lambda _: str(ROOT)},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    path = ROOT / "launch" / "depth.launch.py"
    spec = importlib.util.spec_from_file_location("depth_launch", path)
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)

    def run(**given: str) -> SimpleNamespace:
        *declared, function = file.generate_launch_description()
        arguments = {a.args[0]: a.kwargs["default_value"] for a in declared}
        assert set(given) <= set(arguments)
        *environment, node = function.kwargs["function"]({**arguments, **given})
        return SimpleNamespace(
            about={a.args[0]: a.kwargs["description"] for a in declared},
            environment=dict(variable.args for variable in environment),
            node=node.kwargs,
        )

    return run


def test_every_parameter_of_the_node_is_an_argument_with_its_description(launch):
    about = launch().about
    for f in dataclasses.fields(NodeSettings):
        assert about[f.name] == f.metadata["help"]


def test_what_is_not_given_is_left_to_the_parameter_file(launch):
    path, given = launch().node["parameters"]
    assert Path(path) == ROOT / "config" / "depth.yaml"
    assert given == {"autostart": True}


def test_what_is_given_comes_after_the_parameter_file_with_its_type(launch):
    words = {
        "device": "cuda:0",
        "depth_encoding": "16UC1",
        "rectified": "true",
        "point_stride": "2",
        "min_depth": "0.5",
        "autostart": "false",
        "use_sim_time": "true",
        "model": "/my/net.onnx",
    }
    path, given = launch(params_file="/my/own.yaml", **words).node["parameters"]
    assert path == "/my/own.yaml"
    assert given == {
        "device": "cuda:0",
        "depth_encoding": "16UC1",
        "rectified": True,
        "point_stride": 2,
        "min_depth": 0.5,
        "autostart": False,
        "use_sim_time": True,
        "model": "/my/net.onnx",
    }


def test_topics_are_remapped_and_nothing_but_topics(launch):
    node = launch(image="/cam/image_raw", namespace="front", device="cpu").node
    assert node["remappings"] == [("image", "/cam/image_raw"), ("camera_info", "camera_info")]
    assert (node["namespace"], node["name"]) == ("front", "depth_node")


@pytest.mark.parametrize("own", PROFILE_VARIABLES)
def test_large_messages_get_our_profile_unless_the_user_has_one(launch, monkeypatch, own):
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    profiles = launch().environment
    assert set(profiles) == set(PROFILE_VARIABLES)
    assert all("<segment_size>67108864<" in Path(p).read_text() for p in profiles.values())
    monkeypatch.setenv(own, "/my/profile.xml")
    assert launch().environment == {}
