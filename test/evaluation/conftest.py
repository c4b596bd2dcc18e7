"""Small bags and networks whose right numbers are known beforehand."""

import numpy as np
import pytest

from mde_ros.datasets.bag_file import BagWriter
from mde_ros.datasets.bag_messages import SAMPLE_TOPICS, sample_messages
from mde_ros.frame import Camera, Frame

W, H = 64, 48
CAMERA = Camera(W, H, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))


@pytest.fixture
def write_bag():
    """(path, depths in metres, first second) → a bag of them, 0.1 s apart, images of noise."""

    def write(path, depths_m, start_s=1):
        rng = np.random.default_rng(start_s)
        with BagWriter(path) as bag:
            for i, depth_m in enumerate(depths_m):
                image = rng.integers(0, 255, (H, W, 3), np.uint8)
                stamp = start_s * 10**9 + i * 10**8
                for topic, ns, raw in sample_messages(Frame(image, CAMERA), depth_m, stamp):
                    bag.write(topic, SAMPLE_TOPICS[topic], ns, raw)
        return path

    return write


@pytest.fixture
def wall_model(foreign_onnx):
    """An ONNX network that says 2 m everywhere, whatever it sees."""
    nodes = [
        ("Mul", ["x", 0.0], ["zero"]),
        ("ReduceMean", ["zero"], ["plane"], {"axes": [1], "keepdims": 1}),
        ("Add", ["plane", 2.0], ["y"]),
    ]
    return str(foreign_onnx(nodes, "size: [8, 8]\n", (1, 3, 8, 8), "wall"))


@pytest.fixture
def bright_model(foreign_onnx):
    """An ONNX network whose depth is 2 m and a metre more where the image is white."""
    nodes = [
        ("ReduceMean", ["x"], ["grey"], {"axes": [1], "keepdims": 1}),
        ("Add", ["grey", 2.0], ["y"]),
    ]
    return str(foreign_onnx(nodes, "size: [32, 24]\n", (1, 3, 24, 32), "bright"))
