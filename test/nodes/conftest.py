"""Fixtures of the node tests; their parts are in robot.py."""

import os
import sys
from pathlib import Path

import pytest

from mde_ros.nodes.process import dds_environment

os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"  # tests in one process meet nobody else
# Read once, with the first participant of a process: so all tests have it, in whatever order.
os.environ.update(dds_environment())
sys.path.append(str(Path(__file__).parent))  # for robot.py: test folders are no packages

from robot import Bench, CompletionBench, write_completion, write_mask, write_network


@pytest.fixture(autouse=True)
def ros_log(tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def completion_bench():
    bench = CompletionBench()
    yield bench
    bench.close()


@pytest.fixture
def wall(tmp_path):
    """A network that sees a wall at 2 m, whatever the image, and has a mask beside it."""
    path = write_network(tmp_path / "wall.onnx")
    write_mask(path, threshold=0.1, rate=0.01)
    return path


@pytest.fixture
def ramp(tmp_path):
    """A network whose depth is the red value in decimetres, pixel by pixel for 64x48 images."""
    return write_network(tmp_path / "ramp.onnx", per_red=0.1, metres=0.0, size=(64, 48))


@pytest.fixture
def echo(tmp_path):
    """A completion network that says what points it got, and 9 m where it got none."""
    return write_completion(tmp_path / "echo.onnx")
