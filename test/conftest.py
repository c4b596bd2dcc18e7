"""Cameras, stub networks and the optional real data that tests of every part share."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

# A shell that starts the tests in the background lets them, and so their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: torch's threads would only wait

from mde_ros.frame import Camera  # noqa: E402 - after what it must find set


@pytest.fixture
def shared_data():
    """Folder of real recordings beside the repository or at MDE_SHARED_DATA, else a skip."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MDE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set MDE_SHARED_DATA)")
    return folder


@pytest.fixture
def camera():
    """64x48, different focal lengths, a principal point off the middle, no distortion."""
    return Camera(64, 48, np.array([[50, 0, 30.2], [0, 55, 25.7], [0, 0, 1.0]]))


@pytest.fixture
def foreign_onnx(tmp_path):
    """(nodes, yaml text, dims) → path of a foreign ONNX file with its YAML beside it.

    The graph maps `x`, float of `dims`, to `y`; each node is (operator, inputs, outputs) or has a
    dictionary of attributes as fourth item; inputs that are numbers or lists become constants.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def make(nodes, description=None, dims=(1, 3, "h", "w"), name="net"):
        weights, made = [], []
        for operator, inputs, outputs, *attributes in nodes:
            names = []
            for value in inputs:
                if not isinstance(value, str):
                    kind = np.int64 if isinstance(value, list) else np.float32
                    weights.append(
                        numpy_helper.from_array(np.array(value, kind), f"c{len(weights)}")
                    )
                    value = weights[-1].name
                names.append(value)
            made.append(helper.make_node(operator, names, outputs, **dict(*attributes)))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(made, "stub", [x], [y], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        if description is not None:
            path.with_suffix(".yaml").write_text(description)
        return path

    return make


@pytest.fixture(scope="session")
def planted():
    """name → a network of fixed random weights and statistics, so that every layer matters."""
    torch = pytest.importorskip("torch")
    from mde_ros.networks import make_network

    def make(name):
        torch.manual_seed(7)
        network = make_network(name).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2.0)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.1, 0.1)
            elif isinstance(module, torch.nn.Conv2d) and not module.weight.any():
                module.reset_parameters()
        head = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        if head.bias is not None:
            torch.nn.init.constant_(head.bias, 0.7)
        return network

    return make


@pytest.fixture(scope="session")
def students(planted, tmp_path_factory):
    """name → (checkpoint, ONNX) of both light students with planted weights, made once."""
    from mde_ros.checkpoint import Checkpoint, save
    from mde_ros.export import export

    folder, made = tmp_path_factory.mktemp("students"), {}
    for name in ("fast_mobilenet_v2", "light_mobilenet_v2"):
        path = folder / f"{name}.safetensors"
        spec = {"name": name, "focal_px": 250.0, "pixels": 96 * 64}
        save(path, Checkpoint(name, planted(name), spec, {"loop": {"seed": 3}}))
        export(path, path.with_suffix(".onnx"))
        made[name] = (path, path.with_suffix(".onnx"))
    return made


@pytest.fixture(scope="module")
def ruler(tmp_path_factory):
    """(checkpoint, ONNX) of a completion network of known answer; its focal length is 100 pixels.

    Canonical depth is 2 m + 3 × the sparse depth, its standard deviation 0.5 m + the sparse depth.
    """
    torch = pytest.importorskip("torch")
    from mde_ros.checkpoint import Checkpoint, save
    from mde_ros.export import export
    from mde_ros.networks import NETWORKS, Network

    class Ruler(torch.nn.Module):
        takes_points = True

        def __init__(self):
            super().__init__()
            self.offset = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, image, sparse_m):
            nothing = 0 * image[:, :1]
            return self.offset + 3 * sparse_m + nothing, 2 * torch.log(0.5 + sparse_m) - np.log(2)

    path = tmp_path_factory.mktemp("ruler") / "ruler.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "ruler", Network(Ruler, "known"))
        save(path, Checkpoint("ruler", Ruler(), {"name": "ruler", "focal_px": 100.0}))
        export(path, path.with_suffix(".onnx"))
        yield path, path.with_suffix(".onnx")
