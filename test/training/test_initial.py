"""What a training starts from: every tensor goes where it belongs, mistakes are sentences."""

import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mde_ros.cli import extra_for, main
from mde_ros.config import ConfigError
from mde_ros.networks import make_network
from mde_ros.networks.backbones import BACKBONES, make_backbone
from mde_ros.runtime import find_model
from mde_ros.training.initial import TIMM, imagenet_weights, initial_path, load_encoder

NAME = "fast_mobilenet_v2"


def test_start_from_a_checkpoint_or_from_public_weights_of_the_encoder(
    students, planted, tmp_path, monkeypatch
):
    network, expected = make_network(NAME), planted(NAME)
    load_encoder(network, NAME, str(students[NAME][0]))
    assert torch.equal(network.refine[1].weight, expected.refine[1].weight)
    torch.save({k: v + 1 for k, v in expected.encoder.state_dict().items()}, tmp_path / "a.pt")
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    load_encoder(network, NAME, "$WEIGHTS/a.pt")
    stem = "features.0.0.weight"
    assert torch.equal(
        network.encoder.get_parameter(stem), expected.encoder.get_parameter(stem) + 1
    )


def test_start_from_another_student_takes_its_trunk_and_keeps_the_own_head(students, planted):
    network, other = make_network(NAME), planted("light_mobilenet_v2")
    head = network.refine[1].weight.clone()
    load_encoder(network, NAME, str(students["light_mobilenet_v2"][0]))
    for part in ("encoder", "gates", "fuse_up"):
        for name, value in other.get_submodule(part).state_dict().items():
            assert torch.equal(network.get_submodule(part).state_dict()[name], value), name
    assert torch.equal(network.refine[1].weight, head)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_initial_weights_that_do_not_fit_are_one_sentence(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "code.pt").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    files = {
        str(tmp_path / "nowhere.pt"): "nowhere.pt",
        str(tmp_path / "code.pt"): "initial: ",
        str(tmp_path / "text.pt"): "initial: ",
        str(tmp_path / "other.pt"): "is this file of another backbone",
        str(tmp_path / "list.pt"): "initial: ",
    }
    for file, message in files.items():
        with pytest.raises(ConfigError, match=message):
            load_encoder(make_network(NAME), NAME, file)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s2d_resnet18", "needs LiDAR points; expected a network of images alone"),
        ("lifelong_resnet34", "gives more than depth; expected a network of depth alone"),
        ("saliency_drn22", "gives a mask; expected a network of depth"),
        ("defence_smoothing", "gives a mask; expected a network of depth"),
        ("monodepth2_resnet18", "knows no metres; expected a network of metric depth"),
        ("resnet", "expected one of mff_resnet50, .*got 'resnet'"),
    ],
)
@pytest.mark.parametrize("recipe", ["supervised", "distill", "distill_free"])
def test_network_that_is_no_student_is_one_sentence_before_anything_is_read(
    recipe, name, message, tmp_path, capsys
):
    settings = f"network={name}", "sources=[{path: nowhere}]", "teacher=nowhere.safetensors"
    settings = settings[: 2 if recipe == "supervised" else 3]
    assert main(["train", recipe, "--set", *settings, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.match(f"mde: network: ({name} )?{message}", error) and error.count("\n") == 1


def test_shipped_model_is_found_by_its_name():
    assert initial_path("default") == find_model("default", ".safetensors")
    assert initial_path("runs/default") == Path("runs/default")


@pytest.fixture
def timm(monkeypatch):
    """A timm that remembers what was asked for; its MobileNet-V2 has names of its own."""

    def create_model(name, pretrained):
        assert pretrained
        backbone = next(b for b, theirs in TIMM.items() if theirs == name)
        weights = make_backbone(backbone).state_dict()
        weights = {k: torch.rand_like(v.float()) for k, v in weights.items()}
        if backbone == "mobilenet_v2":
            weights = {f"blocks.{i}": v for i, v in enumerate(weights.values())}
        made[backbone] = list(weights.values())
        return SimpleNamespace(state_dict=lambda: weights | {"fc.bias": torch.zeros(1000)})

    made = {}
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return made


@pytest.mark.parametrize(
    ("name", "backbone"), [(NAME, "mobilenet_v2"), ("mff_resnet18", "resnet18")]
)
def test_imagenet_weights_of_timm_arrive_in_the_order_of_the_layers(timm, name, backbone):
    network = make_network(name)
    load_encoder(network, name, "imagenet")
    own = [v for k, v in network.encoder.state_dict().items() if "tracked" not in k]
    theirs = [v for v in timm[backbone] if v.ndim]
    assert len(own) == len(theirs) and all(map(torch.equal, own, theirs))


def test_every_backbone_has_weights_in_timm():
    assert set(TIMM) <= set(BACKBONES)
    real = pytest.importorskip("timm", exc_type=ImportError)
    assert set(TIMM.values()) <= set(real.list_pretrained())


def test_missing_timm_and_one_that_cannot_fetch_are_told_what_to_do(monkeypatch, timm):
    def offline(name, pretrained):
        raise OSError("no route to host")

    monkeypatch.setattr(sys.modules["timm"], "create_model", offline)
    with pytest.raises(ConfigError, match=r"timm could not get mobilenetv2.*no route to host"):
        load_encoder(make_network(NAME), NAME, "imagenet")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError) as caught:
        load_encoder(make_network(NAME), NAME, "imagenet")
    assert extra_for(caught.value.name) == "install mde_ros[timm]"


def test_encoder_that_timm_does_not_have_is_told_where_its_weights_come_from():
    with pytest.raises(ConfigError, match=r"no ImageNet weights of the encoder of saliency_drn22"):
        imagenet_weights("saliency_drn22")
