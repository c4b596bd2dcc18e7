"""What is stale among the shipped weights: nothing now; what hangs on a file, when that changes."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from mde_ros.checkpoint import read_tensors, write_tensors
from mde_ros.runtime import read_spec, sha256_of

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "mde_ros" / "weights"
script = runpy.run_path(str(ROOT / "scripts" / "weights.py"))


def stale(folder: Path) -> set[str]:
    return {file.name for file in script["files"](folder) if file.stale}


def nudge(path: Path) -> None:
    """Change one weight."""
    tensors, header = read_tensors(path)
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    tensors[name].view(-1)[0] += 1
    write_tensors(path, tensors, header)


@pytest.fixture
def planted(tmp_path):
    """A copy of the shipped weights."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "weights"))


def test_what_is_shipped_is_fresh(capsys):
    assert script["main"](SHIPPED) == 0, capsys.readouterr().out


def test_another_student_makes_all_stale_that_was_made_from_it(planted, capsys):
    nudge(planted / "student-fast.safetensors")
    expected = {"student-fast.onnx", "student-fast.md", "completion-fast.safetensors"}
    digest = sha256_of(SHIPPED / "student-fast.safetensors")
    for path in planted.glob("*-mask.safetensors"):
        if digest in {m.sha256 for m in read_spec(path).masks}:
            expected |= {path.name, f"{path.stem}.onnx"}
    assert stale(planted) == expected
    assert script["main"](planted) == 1
    assert "config/train/completion-fast.yaml" in capsys.readouterr().out


def test_other_weights_alone_make_their_graph_and_card_stale(planted):
    nudge(planted / "student-published.safetensors")
    assert stale(planted) == {"student-published.onnx", "student-published.md"}


def test_missing_graph_and_card_are_stale(planted):
    for suffix in (".onnx", ".md"):
        (planted / f"completion-fast{suffix}").unlink()
    assert stale(planted) == {"completion-fast.onnx", "completion-fast.md"}


def test_mask_of_other_weights_is_stale_and_says_which(planted):
    tensors, header = read_tensors(planted / "student-fast.safetensors")
    header["spec"]["masks"] = [{"model": "student-fast", "sha256": "0" * 64}]
    path = planted / "student-fast-mask.safetensors"
    write_tensors(path, tensors, header)
    (found,) = [file for file in script["files"](planted) if file.name == path.name]
    digest = sha256_of(planted / "student-fast.safetensors")
    assert found.stale == (
        f"made for student-fast.safetensors of {'0' * 12}…, which is {digest[:12]} now"
    )
    assert "mde train defence" in found.renew


def test_mask_of_another_completion_is_only_to_be_shipped_again(planted):
    nudge(planted / "completion-fast.safetensors")
    found = {file.name: file.renew for file in script["files"](planted) if file.stale}
    assert "scripts/ship.py" in found["student-fast-mask.safetensors"]
    assert "mde train" not in found["student-fast-mask.safetensors"]
