"""The command: light --help, and a user's mistake is one line and exit code 2."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mde_ros import __version__, cli
from mde_ros.cli import main, overrides
from mde_ros.config import ConfigError
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


def test_json_that_cannot_be_written_leaves_no_partial_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        cli.write_json({"a": 1}, str(folder))
    assert list(tmp_path.iterdir()) == [folder]


def test_file_that_cannot_be_used_is_named(monkeypatch, capsys):
    assert failing(monkeypatch, PermissionError(13, "Permission denied", "/a/b")) == 2
    assert capsys.readouterr().err == "mde: /a/b: Permission denied\n"
    with pytest.raises(BrokenPipeError):
        failing(monkeypatch, BrokenPipeError(32, "Broken pipe"))
