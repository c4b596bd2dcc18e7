"""The depth node with a lifelong model: which domain it believes, and what it tells of that."""

import json

import numpy as np
import onnx
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from onnx import TensorProto, helper, numpy_helper
from robot import image_message, info_message

from mde_ros.domains import FRAMES

DEPTH = "depth/image_rect"
DARK, BRIGHT = (np.full((48, 64, 3), level, np.uint8) for level in (10, 170))


@pytest.fixture
def lifelong(tmp_path):
    """A network of two domains: dark images, 2 m, and bright ones, 5 m.

    The distances are those of the mean grey value to 0 and to 200.
    """
    each = np.array([2.0, 5.0], np.float32).reshape(1, 2, 1, 1) * np.ones((1, 2, 6, 8), np.float32)
    constants = {
        "levels": np.array([[0.0, 200.0]], np.float32),
        "metres": each,
        "deviations": each / 10,
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["levels", "mean"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["distances"]),
        helper.make_node("ArgMin", ["distances"], ["domain"], axis=1, keepdims=0),
        helper.make_node("Identity", ["metres"], ["depth_each"]),
        helper.make_node("Identity", ["deviations"], ["uncertainty_each"]),
        helper.make_node("Gather", ["metres", "domain"], ["depth"], axis=1),
        helper.make_node("Gather", ["deviations", "domain"], ["uncertainty"], axis=1),
    ]
    names = ("depth", "uncertainty", "domain", "distances", "depth_each", "uncertainty_each")
    graph = helper.make_graph(
        nodes,
        "stub",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3]),
            helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "domain" else TensorProto.FLOAT, None
            )
            for name in names
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    spec = {"name": "stub", "size": [64, 48], "domains": ["cellar", "garden"]}
    helper.set_model_props(model, {"mde_ros": json.dumps(spec)})
    onnx.save(model, tmp_path / "lifelong.onnx")
    return tmp_path / "lifelong.onnx"


def metres(bench, rgb, number):
    """The node's depth for the number-th image."""
    msg = bench.answer(DEPTH, image_message(rgb, number * 10**9), info_message(64, 48))
    depth = np.unique(np.frombuffer(msg.data, np.float32))
    assert len(depth) == 1
    return float(depth[0])


def test_node_changes_the_domain_once_the_place_has_changed_and_not_before(bench, lifelong):
    bench.start(lifelong, DEPTH)
    flicker = [metres(bench, BRIGHT if i % 2 else DARK, i) for i in range(2 * FRAMES)]
    change = [metres(bench, BRIGHT, 100 + i) for i in range(FRAMES + 1)]
    assert flicker == [2.0] * (2 * FRAMES)
    assert change == [2.0] * (FRAMES - 2) + [5.0] * 3  # the last of the flicker was bright


def test_diagnostics_tell_the_domain_and_its_distance(bench, lifelong):
    heard = []
    bench.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    bench.start(lifelong, DEPTH, diagnostics_period=0.1)
    metres(bench, BRIGHT, 1)

    def told():
        return {v.key: v.value for v in heard[-1].status[0].values} if heard else {}

    bench.until(lambda: "domain" in told())
    assert (told()["domain"], float(told()["domain_distance"])) == ("garden", 30.0)


def test_domain_that_is_named_stays_whatever_the_camera_sees(bench, lifelong):
    bench.start(lifelong, DEPTH, domain="cellar")
    assert [metres(bench, BRIGHT, i) for i in range(FRAMES + 3)] == [2.0] * (FRAMES + 3)


def test_domain_that_the_model_does_not_have_fails_configure(bench, lifelong, capfd):
    assert not bench.make(model=str(lifelong), domain="attic").start()
    assert "domain: expected one of auto, cellar, garden, got 'attic'" in capfd.readouterr().err
