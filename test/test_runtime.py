"""Runtimes: foreign networks against their formula, parity of ours, errors that say what to do."""

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from mde_ros import runtime as runtimes
from mde_ros.runtime import (
    ModelError,
    ModelSpec,
    OnnxRuntime,
    load_runtime,
    sha256_of,
    shipped_models,
    spec_from_json,
    spec_to_json,
)
from mde_ros.runtime.torch_runtime import same_depth

MIX = np.array([1.0, 10.0, 100.0], np.float32)  # tells the channels apart
RED = [("Slice", ["x", [0], [1], [1]], ["y"])]
TWO_METRES = [
    ("Slice", ["x", [0], [1], [1]], ["red"]),
    ("Mul", ["red", 0.0], ["zero"]),
    ("Add", ["zero", 2.0], ["y"]),
]


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)


def mixing(layout):
    """y = r + 10 g + 100 b of the first, second and third channel the network is given."""
    axis = 1 if layout == "nchw" else 3
    nodes = []
    for i, factor in enumerate(MIX.tolist()):
        nodes.append(("Slice", ["x", [i], [i + 1], [axis]], [f"s{i}"]))
        nodes.append(("Mul", [f"s{i}", factor], [f"m{i}"]))
    return [*nodes, ("Sum", ["m0", "m1", "m2"], ["y"])]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_foreign_network_sees_what_its_description_says(foreign_onnx, image, layout, colour):
    text = f"layout: {layout}\ncolour: {colour}\nscale: 0.5\nmean: [1.0, 2.0, 3.0]\n"
    text += "std: [2.0, 4.0, 8.0]\noutput_scale: 0.25\nfocal_px: 50.0\n"
    dims = (1, 3, "h", "w") if layout == "nchw" else (1, "h", "w", 3)
    runtime = load_runtime(str(foreign_onnx(mixing(layout), text, dims)), device="cpu")
    ordered = image if colour == "rgb" else image[..., ::-1]
    x = (ordered * 0.5 - [1, 2, 3]) / [2, 4, 8]
    depth = runtime(image, 100.0)["depth"]
    assert depth.dtype == np.float32
    assert depth == pytest.approx((x @ MIX * 0.25 * 100 / 50).astype(np.float32), rel=1e-4)


@pytest.mark.parametrize(("focal", "factor"), [("focal_px: 80.0", 2.0), ("", 1.0)])
def test_foreign_depth_scales_with_focal_length_only_where_one_is_declared(
    foreign_onnx, image, focal, factor
):
    runtime = OnnxRuntime(foreign_onnx(TWO_METRES, focal))
    assert (runtime(image, 160.0)["depth"] == np.float32(2.0 * factor)).all()


def test_inverse_depth_becomes_depth_and_what_has_no_inverse_none(foreign_onnx, image):
    image[:2] = 0
    path = foreign_onnx(RED, "output: inverse_depth\noutput_scale: 2.0\nscale: 1.0\n")
    depth = OnnxRuntime(path)(image, 1.0)["depth"]
    red = image[..., 0].astype(float)
    expected = np.divide(1, 2 * red, out=np.full_like(red, np.nan), where=red > 0)
    assert depth == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_foreign_output_that_is_no_single_map_is_refused(foreign_onnx, image):
    runtime = OnnxRuntime(foreign_onnx([("Identity", ["x"], ["y"])], "scale: 1.0"))
    with pytest.raises(ModelError, match=r"expected one depth map, got .*\(1, 3, 12, 16\)"):
        runtime(image, 1.0)


def test_size_that_a_foreign_network_prescribes_is_taken_and_none_other(foreign_onnx):
    assert OnnxRuntime(foreign_onnx(RED, "", (1, 3, 8, 16))).spec.size == (16, 8)
    assert OnnxRuntime(foreign_onnx(RED, "layout: nhwc", (1, 8, 16, 3))).spec.size == (16, 8)
    assert OnnxRuntime(foreign_onnx(RED, "")).spec.size is None
    with pytest.raises(ModelError, match=r"takes 16x8 pixels, but .* gives size \[8, 16\]"):
        OnnxRuntime(foreign_onnx(RED, "size: [8, 16]", (1, 3, 8, 16)))
    with pytest.raises(ModelError, match="expected an input of four dimensions"):
        OnnxRuntime(foreign_onnx([("Identity", ["x"], ["y"])], "", (3, 8, 16)))


@pytest.mark.parametrize("name", ["fast_mobilenet_v2", "light_mobilenet_v2"])
def test_torch_and_onnxruntime_give_the_same_metres(students, name):
    checkpoint, path = students[name]
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    a, b = (load_runtime(str(p), device="cpu", threads=1) for p in (checkpoint, path))
    assert (a.name, b.name, a.spec, a.device) == ("torch", "onnxruntime", b.spec, "cpu")
    one, two = a(image, 500.0)["depth"], b(image, 500.0)["depth"]
    assert one == pytest.approx(two, rel=1e-4, abs=1e-4 * float(np.abs(one).max()))
    assert one == pytest.approx(2 * a(image, 250.0)["depth"], rel=1e-5)


def test_openvino_gives_the_same_metres(students):
    pytest.importorskip("openvino", reason="openvino is not installed")
    path = str(students["fast_mobilenet_v2"][1])
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    one, two = (load_runtime(path, r, "cpu")(image, 250.0)["depth"] for r in ("openvino", "auto"))
    assert one == pytest.approx(two, rel=1e-3)


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_completion_gets_its_points_and_none_where_there_are_none(ruler, name):
    """The ruler at twice its focal length: 2 (2 + 3 s / 2) metres, 2 (0.5 + s / 2) of error."""
    pytest.importorskip(name)
    runtime = load_runtime(str(ruler[0 if name == "torch" else 1]), name, "cpu", 1)
    assert runtime.spec.takes_points
    for size in ((12, 16), (20, 8)):
        image, sparse = np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32)
        sparse[5, 2:7] = np.arange(1, 6)
        for given in (sparse, sparse[::-1], None):
            out = runtime(image, 200.0, given)
            known = np.zeros(size) if given is None else given
            assert out["depth"] == pytest.approx(4 + 3 * known, rel=1e-5)
            assert out["uncertainty"] == pytest.approx(1 + known, rel=1e-4)


def no_gpu():
    return "CUDAExecutionProvider" not in ort.get_available_providers()


def write(path, content):
    path.write_bytes(content)
    return str(path)


def test_default_and_completion_stand_for_the_models_that_weights_names(monkeypatch):
    monkeypatch.setattr("mde_ros.weights.DEFAULT", "student-published")
    monkeypatch.setattr("mde_ros.weights.COMPLETION", "student-fast")
    named = [runtimes.find_model(name, ".onnx").name for name in ("default", "completion")]
    assert named == ["student-published.onnx", "student-fast.onnx"]
    monkeypatch.setattr("mde_ros.weights.COMPLETION", "nothing")
    with pytest.raises(ModelError, match=r"nothing\.onnx does not come with this installation"):
        runtimes.find_model("completion", ".onnx")


MISTAKES = {
    "missing file": (
        lambda t, s: ("nowhere.onnx",),
        "expected default, .*existing .onnx or .safetensors file, got 'nowhere.onnx'",
    ),
    "unknown shipped name": (lambda t, s: ("studnet",), "expected default, .*got 'studnet'"),
    "pickled weights": (
        lambda t, s: (write(t / "a.pt", b"x"),),
        r"expected a .onnx or .safetensors file, got 'a\.pt' \(pickled weights are never loaded",
    ),
    "a folder": (lambda t, s: (str(t),), "existing .onnx or .safetensors file"),
    "unknown runtime": (
        lambda t, s: ("default", "tflite"),
        "runtime: expected one of auto, torch, onnxruntime, openvino, tensorrt, got 'tflite'",
    ),
    "unknown device": (
        lambda t, s: (str(s[1]), "auto", "gpu"),
        "device: expected auto, cpu, cuda or cuda:N, got 'gpu'",
    ),
    "torch with ONNX": (
        lambda t, s: (str(s[1]), "torch", "cpu"),
        "torch runs .safetensors, got fast_mobilenet_v2.onnx; use onnxruntime",
    ),
    "ONNX Runtime with a checkpoint": (
        lambda t, s: (str(s[0]), "onnxruntime", "cpu"),
        "onnxruntime runs .onnx, got fast_mobilenet_v2.safetensors; use `mde export` first",
    ),
    "TensorRT without GPU": (
        lambda t, s: (str(s[1]), "tensorrt", "cpu"),
        "tensorrt needs a GPU; use device:=cuda",
    ),
    "OpenVINO on a GPU": (
        lambda t, s: (str(s[1]), "openvino", "cuda"),
        "openvino runs on the CPU, got device cuda:0; use cpu",
    ),
    "foreign ONNX without YAML": (
        lambda t, s: (str(t / "net.onnx"), "auto", "cpu"),
        r"net\.yaml is not beside it; write one that gives size, mean",
    ),
    "truncated ONNX": (
        lambda t, s: (write(t / "cut.onnx", s[1].read_bytes()[:5000]), "auto", "cpu"),
        r"cut\.onnx: not a readable ONNX network",
    ),
    "no ONNX": (
        lambda t, s: (write(t / "text.onnx", b"hello"), "auto", "cpu"),
        r"text\.onnx: not a readable ONNX network",
    ),
    "truncated checkpoint": (
        lambda t, s: (write(t / "cut.safetensors", s[0].read_bytes()[:-9]), "auto", "cpu"),
        r"cut\.safetensors: not a readable safetensors file \(it is truncated\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_model_that_cannot_be_had_is_one_sentence(mistake, foreign_onnx, students, tmp_path):
    foreign_onnx(TWO_METRES)
    arguments, message = MISTAKES[mistake]
    with pytest.raises(ModelError, match=message) as caught:
        load_runtime(*arguments(tmp_path, students["fast_mobilenet_v2"]))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not no_gpu(), reason="this machine's onnxruntime has CUDA")
def test_gpu_that_is_not_there_is_named_and_never_replaced_by_the_cpu(students):
    import torch

    checkpoint, path = students["fast_mobilenet_v2"]
    with pytest.raises(ModelError, match="this onnxruntime has no CUDAExecutionProvider; it has"):
        load_runtime(str(path), device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="torch sees no GPU; use device:=cpu"):
            load_runtime(str(checkpoint), device="cuda:0")


@pytest.fixture
def gpu_node(tmp_path, monkeypatch):
    """A machine that looks as if it had an NVIDIA GPU, whatever is installed on it."""
    node = tmp_path / "nvidia0"
    node.touch()
    monkeypatch.setattr(runtimes, "GPU_NODES", (str(node),))


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(not no_gpu(), reason="this machine's onnxruntime has CUDA")
@pytest.mark.parametrize(
    ("runtime", "suffix"),
    [("auto", 0), ("torch", 0), ("auto", 1), ("onnxruntime", 1)],
    ids=["checkpoint", "checkpoint on torch", "ONNX", "ONNX on onnxruntime"],
)
def test_gpu_that_nothing_here_can_use_is_passed_over(
    students, gpu_node, monkeypatch, runtime, suffix
):
    """CPU builds of torch and ONNX Runtime, the latter claiming a CUDA that does not load."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: list(OnnxRuntime.PROVIDERS.values())
    )
    loaded = load_runtime(str(students["fast_mobilenet_v2"][suffix]), runtime)
    assert (loaded.device, loaded.name) == ("cpu", ("torch", "onnxruntime")[suffix])


@pytest.mark.parametrize("library", ["torch", "onnxruntime"])
def test_library_that_is_not_installed_is_named_and_auto_does_without(
    students, gpu_node, monkeypatch, library
):
    monkeypatch.setitem(sys.modules, library, None)  # import then fails
    checkpoint, path = students["fast_mobilenet_v2"]
    own, other = (checkpoint, path) if library == "torch" else (path, checkpoint)
    with pytest.raises(ModelError, match=f"{library} cannot be imported .* install"):
        load_runtime(str(own))
    assert load_runtime(str(other)).path == other


ORDERS = {
    ("default", "auto"): [("torch", "cuda:0"), ("onnxruntime", "cuda:0"), ("onnxruntime", "cpu")],
    ("a.onnx", "auto"): [("onnxruntime", "cuda:0"), ("onnxruntime", "cpu")],
    ("a.safetensors", "auto"): [("torch", "cuda:0"), ("torch", "cpu")],
    ("default", "torch"): [("torch", "cuda:0"), ("torch", "cpu")],
    ("default", "openvino"): [("openvino", "cpu")],
    ("default", "tensorrt"): [("tensorrt", "cuda:0")],
}


@pytest.mark.parametrize(("model", "runtime"), ORDERS)
def test_auto_tries_the_gpu_first_and_an_explicit_device_is_the_only_one(gpu_node, model, runtime):
    order = ORDERS[model, runtime]
    assert runtimes.candidates(model, runtime, "auto") == order
    assert runtimes.candidates(model, runtime, "cuda:2") == [(order[0][0], "cuda:2")]
    assert runtimes.candidates(model, runtime, "cpu") == [(order[-1][0], "cpu")]


def test_machine_without_gpu_node_never_looks_for_one(monkeypatch):
    monkeypatch.setattr(runtimes, "GPU_NODES", ())
    for model, runtime in ORDERS:
        (choice,) = runtimes.candidates(model, runtime, "auto")
        assert choice[1] == "cpu"


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(not no_gpu(), reason="this machine's onnxruntime has CUDA")
def test_onnxruntime_that_falls_back_to_the_cpu_is_refused(students, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ModelError, match="CUDAExecutionProvider could not be loaded"):
        load_runtime(str(students["fast_mobilenet_v2"][1]), device="cuda")


@pytest.mark.parametrize("kind", ["tensorrt", "onnxruntime"])
def test_gpu_providers_get_the_device_and_a_cache_of_their_own(
    students, monkeypatch, tmp_path, kind
):
    """What ONNX Runtime is asked for, as its documentation of both providers spells it."""
    asked = []

    def session(path, options, providers):
        asked.extend(providers)
        raise RuntimeError("enough")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: list(OnnxRuntime.PROVIDERS.values())
    )
    monkeypatch.setattr(ort, "InferenceSession", session)
    path = students["fast_mobilenet_v2"][1]
    with pytest.raises(ModelError, match="enough"):
        load_runtime(str(path), kind, "cuda:1")
    cache = tmp_path / ".cache/mde_ros/tensorrt" / sha256_of(path)[:16]
    engine = {
        "device_id": 1,
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
    }
    cuda = ("CUDAExecutionProvider", {"device_id": 1})
    expected = [("TensorrtExecutionProvider", engine), cuda] if kind == "tensorrt" else [cuda]
    assert asked == expected and cache.is_dir() == (kind == "tensorrt")


def test_half_precision_is_taken_only_where_every_pixel_agrees():
    torch = pytest.importorskip("torch")
    from mde_ros.model import DepthModel

    class Scaled(torch.nn.Module):
        """2 m plus a tenth of the image; on the way a power of two that fp16 may not hold."""

        def __init__(self, power, off=0.0):
            super().__init__()
            self.power, self.off = 2.0**power, off

        def forward(self, x):
            depth = (2 + x[:, :1] / 10) * self.power / self.power
            depth[..., 0, 0] += self.off * (x.dtype == torch.float16)
            return depth

    def agrees(network):
        exact, rough = DepthModel(network), DepthModel(network).half()
        return same_depth(exact, rough, ModelSpec(pixels=32 * 32), "cpu")

    assert agrees(Scaled(3)) and not agrees(Scaled(17)), "2 · 2^17 is infinite in fp16"
    assert agrees(Scaled(0, 0.03)) and not agrees(Scaled(0, 0.05)), "2 % of about 2 m are 0.04 m"


@pytest.fixture(scope="module")
def linked(students, tmp_path_factory):
    """Checkpoint and an ONNX file that points into it, under different names."""
    from mde_ros.export import export

    folder = tmp_path_factory.mktemp("linked")
    weights, path = folder / "weights.safetensors", folder / "net.onnx"
    weights.write_bytes(students["fast_mobilenet_v2"][0].read_bytes())
    export(weights, path, linked=True)
    return weights, path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fate", ["gone", "shorter"])
def test_linked_network_says_that_its_checkpoint_is_not_what_it_was(
    linked, tmp_path, runtime, fate
):
    pytest.importorskip(runtime)
    weights, path = (Path(shutil.copy(original, tmp_path)) for original in linked)
    was = sha256_of(weights)[:12]
    if fate == "gone":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-4000])
    now = "no file" if fate == "gone" else sha256_of(weights)[:12]
    message = f"expected weights.safetensors beside it with SHA-256 {was}…, got {now}; export it"
    with pytest.raises(ModelError, match=message):
        load_runtime(str(path), runtime, "cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sclae: 1.0", "unknown key 'sclae'; valid: .*scale"),
        ("layout: chw", "layout: expected one of nchw, nhwc, got 'chw'"),
        ("size: [224]", "size: expected"),
        ("- size", "net.yaml"),
        ("a: [", "net.yaml"),
    ],
)
def test_description_with_a_mistake_is_named(foreign_onnx, text, message):
    path = foreign_onnx(TWO_METRES, text)
    with pytest.raises(ModelError, match=message):
        OnnxRuntime(path)


def test_spec_survives_json_and_stores_only_what_differs():
    spec = ModelSpec(name="a", size=(64, 48), focal_px=100.0)
    text = spec_to_json(spec)
    assert spec_from_json(text, "here") == spec
    assert "layout" not in text
    with pytest.raises(ModelError, match="here: its description cannot be used"):
        spec_from_json("{", "here")
    with pytest.raises(ModelError, match="unknown key 'nmae'"):
        spec_from_json('{"nmae": 1}', "here")


def test_hash_is_that_of_the_file(tmp_path, students):
    path = students["fast_mobilenet_v2"][1]
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert OnnxRuntime(path).sha256 == sha256_of(path)


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_model_runs_and_is_named(name):
    runtime = load_runtime(name, "onnxruntime", "cpu")
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    depth = runtime(image, 100.0)["depth"]
    assert depth.shape == (48, 64) and np.isfinite(depth).all() and (depth > 0).mean() > 0.99
    assert runtime.spec.focal_px and not runtime.spec.foreign


def test_fastdepth_runs_under_any_name_as_its_authors_would_run_it(shared_data, tmp_path):
    """By hand: RGB/255 into the network; metres grow with focal length over NYU's 229.6 px."""
    original = shared_data / "weights/fastdepth_nyu/fastdepth_7.onnx"
    path = tmp_path / "renamed.onnx"
    path.write_bytes(original.read_bytes())
    runtime = load_runtime(str(path), device="cpu")
    assert (runtime.spec.name, runtime.spec.size) == ("fastdepth", (224, 224))
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    session = ort.InferenceSession(str(original), providers=["CPUExecutionProvider"])
    x = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    expected = session.run(None, {session.get_inputs()[0].name: x})[0].squeeze()
    depth = runtime(image, 344.4)["depth"]
    assert depth == pytest.approx(expected * 1.5, rel=1e-3)
