"""The launch files: with stand-ins for launch and launch_ros, which pip does not have, and where
there is a ROS installation with the real ones too.
"""

import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml
from domain_coordinator import domain_id

from mde_ros.config import CompletionSettings, NodeSettings
from mde_ros.datasets.bag_file import Bag, BagWriter
from mde_ros.datasets.bag_messages import COMPRESSED, JAZZY, SAMPLE_TOPICS, SCAN, sample_messages
from mde_ros.evaluation.results import load_results
from mde_ros.frame import Frame
from mde_ros.nodes.process import PROFILE_VARIABLES

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in (ROOT / "launch").glob("*.launch.py"))
NODES = {"depth": NodeSettings, "completion": CompletionSettings}
TIME = "builtin_interfaces/msg/Time"
SUBSCRIBED = {
    "depth": {"image", "camera_info"},
    "completion": {"image", "camera_info", "scan", "odom"},
}


class Stated:
    """Stands for any action: keeps what it is made of."""

    def __init__(self, *args, **kwargs) -> None:
        self.args, self.kwargs = args, kwargs


class LaunchConfiguration(Stated):
    def perform(self, context: SimpleNamespace) -> str:
        return context.launch_configurations[self.args[0]]


class PackageNotFoundError(KeyError):
    pass


def get_package_prefix(name: str) -> str:
    if name not in ("mde_ros", "rviz2"):
        raise PackageNotFoundError(name)
    return str(ROOT)


STAND_INS = {
    "launch": {"LaunchDescription": list},
    "launch.actions": {},
    "launch.launch_context": {},
    "launch.launch_description_sources": {},
    "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
    "launch_ros": {},
    "launch_ros.actions": {},
    "ament_index_python.packages": {
        "get_package_share_directory": get_package_prefix,
        "get_package_prefix": get_package_prefix,
        "PackageNotFoundError": PackageNotFoundError,
    },
}


def load(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.partition(".")[0], ROOT / "launch" / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch(monkeypatch):
    """launch(file, name=value, …) → arguments declared, environment set, nodes, processes, …"""
    for name, content in STAND_INS.items():
        module = ModuleType(name)
        vars(module).update(content)
        made = {}  # any other name is an action
        module.__getattr__ = lambda kind, made=made: made.setdefault(
            kind, type(kind, (Stated,), {})
        )
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "mde_ros.nodes.launching", raising=False)

    def run(file: str, **given: str) -> SimpleNamespace:
        *declared, function = load(file).generate_launch_description()
        arguments = {a.args[0]: a.kwargs["default_value"] for a in declared}
        found = {**{k: v for k, v in arguments.items() if v is not None}, **given}
        assert arguments.keys() <= found.keys(), "an argument without a default is not given"
        context = SimpleNamespace(launch_configurations=found)
        actions = function.kwargs["function"](context)
        by_kind: dict[str, list] = {}
        for action in actions:
            by_kind.setdefault(type(action).__name__, []).append(action)
        nodes = by_kind.get("Node", []) + by_kind.get("LifecycleNode", [])
        return SimpleNamespace(
            arguments=arguments,
            about={a.args[0]: a.kwargs["description"] for a in declared},
            environment=dict(a.args for a in by_kind.get("SetEnvironmentVariable", [])),
            nodes={n.kwargs["executable"]: n.kwargs for n in nodes},
            processes={p.kwargs["name"]: p.kwargs for p in by_kind.get("ExecuteProcess", [])},
            configurations=dict(a.args for a in by_kind.get("SetLaunchConfiguration", [])),
            included=[
                Path(i.args[0].args[0]).name for i in by_kind.get("IncludeLaunchDescription", [])
            ],
            order=[type(a).__name__ for a in actions],
        )

    yield run
    sys.modules.pop("mde_ros.nodes.launching", None)


@pytest.fixture
def bag(tmp_path, camera):
    with BagWriter(tmp_path / "a.mcap") as writer:
        frame = Frame(np.zeros((48, 64, 3), np.uint8), camera)
        for stamp in range(10**9, 2 * 10**9, 10**8):
            for topic, t, cdr in sample_messages(frame, np.ones((48, 64), np.float32), stamp):
                writer.write(topic, SAMPLE_TOPICS[topic], t, cdr)
    return str(tmp_path / "a.mcap")


def executables() -> set[str]:
    """Names of the console scripts in setup.py."""
    text = (ROOT / "setup.py").read_text()
    nodes = re.search(r"for n in \(([^)]*)\)", text)[1]
    return {"mde", *re.findall(r'"(\w+)"', nodes)}


@pytest.mark.parametrize("file", FILES)
def test_launch_files_are_short_installed_and_say_what_every_argument_is(launch, bag, file):
    text = (ROOT / "launch" / file).read_text()
    assert len(text.splitlines()) <= 60
    assert 'Path("launch").glob("*.launch.py")' in (ROOT / "setup.py").read_text()
    made = launch(file, **({"bag": bag} if file == "replay.launch.py" else {}))
    assert all(len(about) > 5 for about in made.about.values())
    for executable, node in made.nodes.items():
        assert (node["package"], executable) == ("rviz2", "rviz2") or (
            node["package"] == "mde_ros" and executable in executables()
        )
        assert importlib.util.find_spec(f"mde_ros.nodes.{executable}") or executable == "rviz2"
        assert node["output"] == "screen"
        assert node["ros_arguments"] == ["--log-level", "info"]
    for process in made.processes.values():
        python, flag, module = process["cmd"][:3]
        assert (python, flag) == (sys.executable, "-m") and importlib.util.find_spec(module)


@pytest.mark.parametrize("name", NODES)
def test_every_parameter_of_the_node_is_an_argument_with_its_description(launch, name):
    about = launch(f"{name}.launch.py").about
    for f in dataclasses.fields(NODES[name]):
        assert about[f.name] == f.metadata["help"]


@pytest.mark.parametrize("name", NODES)
def test_what_is_not_given_is_left_to_the_parameter_file(launch, name):
    path, given = launch(f"{name}.launch.py").nodes[f"{name}_node"]["parameters"]
    assert Path(path) == ROOT / "config" / f"{name}.yaml" and Path(path).is_file()
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
    made = launch("depth.launch.py", params_file="/my/own.yaml", **words)
    path, given = made.nodes["depth_node"]["parameters"]
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


@pytest.mark.parametrize("name", NODES)
def test_topics_are_remapped_and_nothing_but_topics(launch, name):
    made = launch(f"{name}.launch.py", image="/cam/image_raw", namespace="front", device="cpu")
    node = made.nodes[f"{name}_node"]
    remapped = dict(node["remappings"])
    assert remapped.pop("image") == "/cam/image_raw"
    assert remapped == {topic: topic for topic in SUBSCRIBED[name] - {"image"}}
    assert (node["namespace"], node["name"]) == ("front", f"{name}_node")


@pytest.mark.parametrize("name", NODES)
def test_a_node_that_ends_is_started_again_unless_one_says_no(launch, name):
    node = launch(f"{name}.launch.py").nodes[f"{name}_node"]
    assert node["respawn"] is True and node["respawn_delay"] > 0
    assert launch(f"{name}.launch.py", respawn="false").nodes[f"{name}_node"]["respawn"] is False


@pytest.mark.parametrize("own", PROFILE_VARIABLES)
@pytest.mark.parametrize("file", FILES)
def test_large_messages_get_our_profile_unless_the_user_has_one(
    launch, monkeypatch, bag, file, own
):
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    given = {"bag": bag} if file == "replay.launch.py" else {}
    made = launch(file, **given)
    assert set(made.environment) == set(PROFILE_VARIABLES)
    assert all("<segment_size>67108864<" in Path(p).read_text() for p in made.environment.values())
    variables, started = {"SetEnvironmentVariable"}, {"Node", "LifecycleNode", "ExecuteProcess"}
    last = max(i for i, kind in enumerate(made.order) if kind in variables)
    first = min(i for i, kind in enumerate(made.order) if kind in started)
    assert last < first  # only what is started afterwards has it
    monkeypatch.setenv(own, "/my/profile.xml")
    assert launch(file, **given).environment == {}


def ends_all(process: dict) -> bool:
    """Whether all ends with a process, but for when the end has begun: twice is an error."""
    (timer,) = process["on_exit"](None, SimpleNamespace(is_shutdown=False))
    kinds = [type(action).__name__ for action in timer.kwargs["actions"]]
    return kinds == ["Shutdown"] and not process["on_exit"](None, SimpleNamespace(is_shutdown=True))


def test_a_replay_finds_the_topics_of_the_bag_and_ends_with_it(launch, bag):
    made = launch("replay.launch.py", bag=bag, json="/tmp/results.json", namespace="front")
    assert made.configurations == {
        "image": "/camera/image_raw",
        "camera_info": "/camera/camera_info",
        "image_transport": "raw",
        "use_sim_time": "true",
        "frame": "camera_optical_frame",
    }
    assert made.included == ["depth.launch.py"]
    watch, player = made.processes["watch"]["cmd"][3:], made.processes["player"]
    assert watch[:4] == ["watch", bag, "--listen", "/front/depth/image_rect"]
    assert watch[4:] == ["--json", "/tmp/results.json"]
    assert player["cmd"][3] == bag
    waits = player["cmd"].index("--wait-for") + 1
    assert player["cmd"][waits : waits + 2] == ["/camera/image_raw", "/camera/camera_info"]
    assert ends_all(player)


def test_a_replay_gives_the_completion_node_the_scans_of_the_bag(launch, bag, tmp_path):
    header = JAZZY.types["std_msgs/msg/Header"](JAZZY.types[TIME](1, 0), "laser")
    ranges = np.ones(3, np.float32)
    scan = JAZZY.types[SCAN](header, -0.1, 0.1, 0.1, 0.0, 0.1, 0.1, 9.0, ranges, ranges)
    with Bag(bag) as source, BagWriter(tmp_path / "scans.mcap") as writer:
        for topic, t, raw in source.messages():
            writer.write(topic, source.topics[topic].type, t, raw)
        writer.write("/base/scan 1", SCAN, 10**9, bytes(JAZZY.serialize_cdr(scan, SCAN)))
    made = launch("replay.launch.py", bag=str(tmp_path / "scans.mcap"), node="completion")
    assert made.included == ["completion.launch.py"]
    assert made.configurations["scan"] == "/base/scan_1"
    assert made.configurations["scan_type"] == "LaserScan"
    known = {"use_sim_time", "frame", *SUBSCRIBED["completion"]}
    known |= {f.name for f in dataclasses.fields(CompletionSettings)}
    assert made.configurations.keys() <= known


def test_a_replay_takes_the_camera_the_node_and_rviz_that_were_asked_for(launch, bag, tmp_path):
    """Two cameras, one of them compressed."""
    rear = {"header": JAZZY.types["std_msgs/msg/Header"](JAZZY.types[TIME](1, 0), "rear")}
    picture = JAZZY.types[COMPRESSED](**rear, format="jpeg", data=np.zeros(9, np.uint8))
    with Bag(bag) as source, BagWriter(tmp_path / "two.mcap") as writer:
        for topic, t, raw in source.messages():
            writer.write(topic, source.topics[topic].type, t, raw)
        cdr = bytes(JAZZY.serialize_cdr(picture, COMPRESSED))
        writer.write("/rear/compressed", COMPRESSED, 10**9, cdr)
    path = str(tmp_path / "two.mcap")
    made = launch(
        "replay.launch.py", bag=path, image="/rear/compressed", node="completion", rviz="true"
    )
    assert made.configurations["image"] == "/rear"
    assert made.configurations["image_transport"] == "compressed"
    assert made.included == ["completion.launch.py", "view.launch.py"]
    assert made.processes["watch"]["cmd"][-2:] == ["--image-topic", "/rear/compressed"]


def test_rviz_and_the_diagnostics_follow_the_namespace_and_the_frame(launch):
    made = launch("view.launch.py", namespace="front", image="/front/image_raw", frame="base_link")
    rviz, status = made.nodes["rviz2"], made.nodes["status_text"]
    assert ends_all(rviz)
    assert rviz["arguments"] == ["-d", str(ROOT / "config" / "mde.rviz"), "-f", "base_link"]
    assert rviz["namespace"] == status["namespace"] == "front"
    remapped = dict(rviz["remappings"])
    assert remapped["/image"] == "/front/image_raw"
    assert remapped["/points"] == "points"  # relative: below the namespace
    assert status["parameters"][0]["frame_id"] == "base_link"
    shown = yaml.safe_load((ROOT / "config" / "mde.rviz").read_text())
    displays = shown["Visualization Manager"]["Displays"]
    assert {d["Topic"]["Value"] for d in displays if "Topic" in d} <= remapped.keys()


def test_rviz_that_is_not_installed_is_told_in_a_sentence(launch, monkeypatch):
    packages = sys.modules["ament_index_python.packages"]

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "get_package_prefix", missing)
    with pytest.raises(RuntimeError, match=r"^view: RViz is missing; apt install ros-.*-rviz2$"):
        launch("view.launch.py")


RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *given = sys.argv[1:]
source = PythonLaunchDescriptionSource(file)
arguments = [tuple(argument.split(":=", 1)) for argument in given]
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


def installed(package: str) -> bool:
    """Whether ament knows a package, as it does on a ROS installation after colcon build."""
    from ament_index_python.packages import get_package_prefix

    try:
        get_package_prefix(package)
    except (LookupError, OSError):  # or there is no ROS at all
        return False
    return importlib.util.find_spec("launch_ros") is not None


@pytest.mark.parametrize(
    ("file", "given", "up"),
    [
        ("depth.launch.py", ["autostart:=false"], "unconfigured; start me"),
        ("completion.launch.py", ["autostart:=false"], "unconfigured; start me"),
        ("view.launch.py", [], "status_text-2]: process started"),
        ("replay.launch.py", ["rviz:=true"], "on cpu"),
        ("replay.launch.py", [], "the bag has ended"),
    ],
)
def test_real_launch_runs_every_file_and_ends_with_code_0(
    monkeypatch, tmp_path, wall, bag, file, given, up
):
    """At Ctrl-C, or the replay by itself."""
    rviz = file == "view.launch.py" or "rviz:=true" in given
    for package in ("mde_ros", "rviz2") if rviz else ("mde_ros",):
        if not installed(package):
            pytest.skip(f"launch_ros or {package} is not installed")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if file == "replay.launch.py":
        given = [*given, f"bag:={bag}", f"model:={wall}", f"json:={tmp_path / 'results.json'}"]
    command = [sys.executable, "-c", RUN, str(ROOT / "launch" / file), *given]
    log = tmp_path / "launch.log"
    with domain_id() as domain, log.open("w") as out:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            if up == "the bag has ended":
                assert process.wait(60) == 0, log.read_text()
            deadline = time.monotonic() + 60
            while up not in log.read_text() and process.poll() is None:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
            assert process.wait(20) == 0, log.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    said = log.read_text()
    if up == "unconfigured; start me":
        assert "process has finished cleanly" in said and "process has died" not in said
    if up == "the bag has ended":
        results = load_results(tmp_path / "results.json")
        assert 1 <= results["frames_out"] <= results["frames_in"] <= 10
        assert results["models"][0]["metrics"]["mae_m"] == pytest.approx(1)  # 2 m against 1 m
