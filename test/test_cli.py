"""The command: light --help, and a user's mistake is one line and exit code 2."""

import dataclasses
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from mde_ros import __version__, cli
from mde_ros.cli import main, overrides
from mde_ros.config import ConfigError, PipelineSettings, build
from mde_ros.evaluation.score import ScoreSettings
from mde_ros.runtime import OnnxRuntime

COMMANDS = ["demo", "play", "evaluate", "report", "benchmark", "train", "simulate", "export"]


def subcommands():
    parser = cli.make_parser()
    (action,) = [a for a in parser._actions if hasattr(a, "choices") and a.choices]
    return action.choices


def test_commands_of_the_design_are_there():
    assert {*COMMANDS, "networks"} <= set(subcommands())


def test_every_help_shows_its_flags_and_imports_nothing_heavy():
    """One fresh interpreter asks for all of them."""
    code = f"""
import contextlib, io, sys
from mde_ros.cli import main
for command in [None, *{list(subcommands())!r}]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main(([command] if command else []) + ["--help"])
    assert "usage: mde " + (command or "") in text.getvalue(), command
print(*{{m.split(".")[0] for m in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "rclpy", "cv2", "numpy", "onnxruntime", "onnx", "yaml", "rich", "matplotlib"}
    assert not heavy & set(done.stdout.split())


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0 and capsys.readouterr().out.strip() == __version__


@pytest.fixture
def folder(tmp_path):
    """Files that mistakes below refer to."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.yaml").write_text("stepz: 3\n")
    (tmp_path / "b.yaml").write_text("a: [\n")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "broken.mcap").write_text("hello")
    return tmp_path


MISTAKES = [
    (["export", "{}/nowhere.safetensors"], "nowhere.safetensors"),
    (["export", "{}/text.safetensors"], "not a readable safetensors file"),
    (["evaluate", "{}/nowhere"], "nowhere"),
    (["evaluate", "{}/empty"], "found none"),
    (["evaluate", "{}/broken.mcap"], "broken.mcap"),
    (["report", "{}/nowhere.json"], "nowhere.json"),
    (["report", "{}/text.json"], "text.json"),
    (["play", "{}/nowhere.mcap"], "nowhere.mcap"),
    (["train", "supervised"], "sources: expected at least one labelled data set"),
    (["train", "distill", "--add", "x"], "--add, --to: expected the recipe lifelong, got distill"),
    (["train", "lifelong"], "sources: expected a recording of the new domain (--add"),
    (["train", "lifelong", "--add", "a b=x"], "domain: expected a name of letters, digits, - and"),
    (["train", "lifelong", "--add", "{}/nowhere.mcap"], "nowhere.mcap: no such file or folder"),
    (["train", "distill", "--config", "{}/nowhere.yaml"], "nowhere.yaml: cannot be read"),
    (["train", "distill", "--config", "{}/a.yaml"], "unknown key 'stepz'; valid: "),
    (["train", "distill", "--config", "{}/b.yaml"], "not valid YAML"),
    (["train", "distill", "--set", "steps"], "--set: expected KEY=VALUE, got 'steps'"),
    (["train", "distill", "--set", "loop.steps=["], "--set: "),
    (["train", "distill", "--set", "loop=3", "loop.steps=4"], "--set: "),
    (["train", "distill", "--set", "loop.stepz=4"], "loop: unknown key 'stepz'"),
    (["simulate", "--out", "{}/sim", "--size", "big"], "--size: expected WxH"),
    (["simulate", "--out", "{}/sim", "--size", "12"], "--size: expected WxH"),
    (["simulate", "--out", "{}/sim", "--size", "1x2x3"], "--size: expected WxH"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistake_is_one_line_and_exit_code_2(arguments, message, folder, capsys):
    assert main([a.format(folder) for a in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("mde: ") and errors.count("\n") == 1 and message in errors


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train", "fly"], ["export"]])
def test_wrong_usage_ends_with_exit_code_2_too(arguments, capsys):
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2 and "usage: mde" in capsys.readouterr().err


def failing(monkeypatch, error):
    def run(a):
        raise error

    monkeypatch.setattr(cli, "run_networks", run)
    return main(["networks"])


REMEDIES = {
    "rclpy": "source a ROS 2 installation, or install mde_ros[ros]",
    "lightning_utilities.core": "install mde_ros[training]",
    "rerun": "install mde_ros[view]",
    "cv2": "pip install opencv-python-headless",
    "rosbags.highlevel": "pip install rosbags",
    "rosbags.image.image": "pip install rosbags-image",
    "onnxruntime": "pip install onnxruntime",
    "rich.progress": "pip install rich",
    "yaml": "pip install PyYAML",
    "unheard_of": "it is not installed",
}


@pytest.mark.parametrize("module", REMEDIES)
def test_every_missing_library_has_its_remedy(module):
    assert cli.extra_for(module) == REMEDIES[module]


def test_missing_library_names_the_extra_to_install(monkeypatch, capsys):
    error = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert failing(monkeypatch, error) == 2
    assert capsys.readouterr().err == "mde: No module named 'torch'; install mde_ros[training]\n"


def test_ctrl_c_is_exit_code_130_without_traceback(monkeypatch, capsys):
    assert failing(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_error_of_the_program_keeps_its_traceback(monkeypatch, error):
    with pytest.raises(type(error)):
        failing(monkeypatch, error)


def test_overrides_nest_and_are_read_as_yaml():
    pairs = ["loop.steps=100", "loop.lr=0.001", "loop.frozen=[encoder]", "network=a=b"]
    assert overrides(pairs) == {
        "loop": {"steps": 100, "lr": 1e-3, "frozen": ["encoder"]},
        "network": "a=b",
    }
    with pytest.raises(ConfigError):
        overrides(["nothing"])


@pytest.mark.parametrize("recipe", ["distill", "supervised"])
def test_list_of_a_recipe_has_every_setting_with_the_default_it_will_have(recipe, capsys):
    assert main(["train", recipe, "--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    settings = importlib.import_module(f"mde_ros.training.{recipe}").SETTINGS
    some = build(settings, {"sources": [{}]})
    for f in dataclasses.fields(some.loop):
        default = json.dumps(getattr(some.loop, f.name))
        assert default in lines[f"loop.{f.name}"] and f.metadata["help"] in lines[f"loop.{f.name}"]
    assert {"network", "sources[].weight", "held_out[].every"} <= set(lines)
    assert "log_depth" in lines["loss"] if recipe == "distill" else "loss" not in lines


def test_words_that_evaluate_takes_are_those_of_the_settings(capsys):
    """They are written out for --help, which may not load the settings."""
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for cls, names in ((ScoreSettings, ("crop", "aggregation")), (PipelineSettings, ("runtime",))):
        for f in dataclasses.fields(cls):
            if f.name in names:
                *words, last = f.metadata["choices"]
                assert f"{', '.join(words)} or {last}" in said


def test_topics_of_a_bag_reach_the_demo(monkeypatch):
    asked = {}
    monkeypatch.setattr("mde_ros.demo.run_demo", lambda **given: asked.update(given) or 0)
    flags = ["--image-topic", "/a", "--camera-info-topic", "/b", "--truth-topic", "/c"]
    flags += ["--scan-topic", "/d", "--mask-topic", "none", "--max-scan-age", "0.2"]
    flags += ["--laser-to-camera", "0", "-0.1", "1e-3", "0", "0", "0", "1"]
    assert main(["demo", "--bag", "x.mcap", *flags]) == 0
    assert asked["topics"] == {
        "image_topic": "/a",
        "camera_info_topic": "/b",
        "truth_topic": "/c",
        "scan_topic": "/d",
        "mask_topic": "none",
        "max_scan_age": 0.2,
        "laser_to_camera": [0, -0.1, 1e-3, 0, 0, 0, 1],
    }


def test_size_and_device_reach_the_benchmark(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "mde_ros.evaluation.benchmark.run_benchmark", lambda models, **given: asked.update(given)
    )
    assert main(["benchmark", "--size", "320x240", "--device", "cpu"]) == 0
    assert asked["size"] == (320, 240) and asked["device"] == "cpu"


def test_benchmark_of_completion_is_beside_the_mono_model(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "mde_ros.evaluation.benchmark.run_benchmark",
        lambda models, **given: asked.update(given, models=models),
    )
    assert main(["benchmark", "--completion", "--beams", "360"]) == 0
    assert asked["models"] == ["default", "completion"] and asked["beams"] == 360


ROW = {"name": "a", "parameters": 67_569_473, "gmac": 1.5, "input": "304x228", "source": "b"}


def test_networks_as_a_table_and_as_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("mde_ros.networks.describe.describe_all", lambda: [ROW])
    assert main(["networks", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [ROW]
    assert main(["networks", "--json", str(tmp_path / "a/list.json")]) == 0
    assert json.loads((tmp_path / "a/list.json").read_text()) == rows
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["list.json"]
    assert "67,569,473" in capsys.readouterr().out


def test_export_writes_beside_the_checkpoint_what_a_robot_can_run(students, tmp_path, capsys):
    source = tmp_path / "net.safetensors"
    source.write_bytes(students["fast_mobilenet_v2"][0].read_bytes())
    assert main(["export", str(source)]) == 0
    assert "net.onnx: differs from torch by at most" in capsys.readouterr().out.replace("\n", "")
    depth = OnnxRuntime(tmp_path / "net.onnx")(np.zeros((64, 96, 3), np.uint8), 250.0)["depth"]
    assert depth.shape == (32, 48)


def test_json_that_cannot_be_written_leaves_no_partial_file(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr("mde_ros.networks.describe.describe_all", lambda: [ROW])
    assert main(["networks", "--json", str(folder)]) == 2
    assert f"{folder}: cannot be written (Is a directory)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


def test_file_that_cannot_be_used_is_named(monkeypatch, capsys):
    assert failing(monkeypatch, PermissionError(13, "Permission denied", "/a/b")) == 2
    assert capsys.readouterr().err == "mde: /a/b: Permission denied\n"
    with pytest.raises(BrokenPipeError):
        failing(monkeypatch, BrokenPipeError(32, "Broken pipe"))
