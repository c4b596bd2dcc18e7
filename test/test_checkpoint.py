"""Checkpoints: what goes in comes out, and damaged or foreign files end in one sentence."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mde_ros.checkpoint import Checkpoint, CheckpointError, load, read_tensors, save, write_tensors
from mde_ros.networks import make_network
from mde_ros.runtime import ModelError, load_runtime, read_header

NAME = "fast_mobilenet_v2"


@pytest.fixture
def path(students, tmp_path):
    """A copy that a test may damage."""
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(students[NAME][0].read_bytes())
    return copy


def rewrite(path, change=lambda tensors: None, **header):
    tensors, old = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, {**old, **header})


def test_round_trip_keeps_weights_spec_and_settings(planted, path):
    loaded, network = load(path), planted(NAME)
    assert loaded.network_name == NAME and not loaded.network.training
    assert loaded.spec == {"name": NAME, "focal_px": 250.0, "pixels": 96 * 64}
    assert loaded.settings == {"loop": {"seed": 3}}
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded.network(x), network(x))


def test_spec_says_what_the_network_demands_though_no_recipe_wrote_it(tmp_path):
    class Both(torch.nn.Conv2d):
        takes_points, multiple = True, 16

    plain, both = torch.nn.Conv2d(3, 1, 1), Both(3, 1, 1)
    assert Checkpoint(NAME, plain, {"name": "a"}).spec == {"name": "a"}
    assert Checkpoint(NAME, both).spec == {"takes_points": True, "multiple": 16}
    assert Checkpoint(NAME, both, {"multiple": 32}).spec["multiple"] == 32
    path = tmp_path / "completion.safetensors"
    save(path, Checkpoint("s2d_resnet18", make_network("s2d_resnet18"), {"focal_px": 9.0}))
    assert read_tensors(path)[1]["spec"] == {"takes_points": True, "focal_px": 9.0}


def test_half_storage_halves_the_file_and_gives_weights_rounded_to_fp16(planted, path, tmp_path):
    half = tmp_path / "half.safetensors"
    network = planted(NAME)
    save(half, Checkpoint(NAME, network), half=True)
    assert half.stat().st_size == pytest.approx(path.stat().st_size / 2, rel=0.05)
    for key, value in load(half).network.state_dict().items():
        original = network.state_dict()[key]
        assert value.dtype == original.dtype
        assert torch.equal(value, original.half().to(value.dtype)) or "tracked" in key


def test_weight_too_large_for_half_storage_is_refused_and_nothing_is_written(planted, tmp_path):
    network = planted(NAME)
    network.refine[-1].weight.data[0, 0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"refine\.1\.weight .* fp16"):
        save(tmp_path / "half.safetensors", Checkpoint(NAME, network), half=True)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file_and_no_other(planted, path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("mde_ros.checkpoint.save_file", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(path, Checkpoint(NAME, planted(NAME)))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def foreign(path):
    save_file({"a": torch.zeros(2)}, path)


def pickled(path):
    path.write_bytes(pickle.dumps({"weights": np.zeros(10)}))


def not_finite(path):
    rewrite(path, lambda tensors: tensors["refine.1.bias"].fill_(torch.nan))


def missing_weight(path):
    rewrite(path, lambda tensors: tensors.pop("refine.1.bias"))


def training_state(path):
    write_tensors(path, {"network.a": torch.zeros(1)}, {"step": 3})


DAMAGE = [
    (truncate, "not a readable safetensors file"),
    (foreign, "expected a checkpoint of this package, but its description is missing"),
    (pickled, "not a readable safetensors file"),
    (lambda p: p.write_bytes(b""), "not a readable safetensors file"),
    (lambda p: p.unlink(), "no such file$"),
    (not_finite, "some of its weights are not finite"),
    (missing_weight, "its weights do not fit network 'fast_mobilenet_v2'"),
    (lambda p: rewrite(p, network="light_mobilenet_v2"), "do not fit network 'light_mobilenet_v2'"),
    (lambda p: rewrite(p, network="nn"), "expected one of mff_resnet50, .* got 'nn'"),
    (training_state, "no network is named in it"),
    (lambda p: write_tensors(p, {}, [1]), "no network is named in it"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[m for _, m in DAMAGE])
def test_unusable_file_is_one_sentence_that_names_it(path, damage, message):
    damage(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    if path.exists():
        with pytest.raises(ModelError):
            load_runtime(str(path), device="cpu")


def test_header_of_a_missing_file_is_named_as_missing(path):
    path.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: no such file$"):
        read_header(path)


def test_header_can_be_read_without_the_tensors(path):
    header = read_header(path)
    assert json.loads(header["__metadata__"]["mde_ros"])["network"] == NAME
    assert header["refine.1.bias"]["shape"] == [4]


def test_no_code_runs_when_a_file_is_loaded(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        load(path)
    assert not (tmp_path / "exploded").exists()
