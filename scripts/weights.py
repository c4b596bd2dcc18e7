"""Say which shipped file is stale, and the command that renews it: `make weights`.

    python scripts/weights.py [FOLDER]

    student-fast ─┬─ completion-fast     has the student's weights inside, bit for bit
                  └─ student-fast-mask   was trained for the student of this hash, and is for
                                         completion-fast too, by its hash
    each of them ─┬─ NAME.onnx           points into NAME.safetensors (and into that of a mask)
                  └─ NAME.md             the card, names the hash of what it measured

A file that is stale is renewed after those that it is made from. Ends with code 1 if any is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from rich.console import Console

from mde_ros.checkpoint import read_tensors
from mde_ros.runtime import ModelError, read_spec, sha256_of
from mde_ros.runtime.files import MASK, linked_weights

WEIGHTS = Path(__file__).parent.parent / "mde_ros" / "weights"
# What is trained on top of what.
TRUNKS = {"completion-fast": "student-fast"}
RECIPES = {
    "student-fast": "distill",
    "student-published": "distill",
    "completion-fast": "completion",
    "student-fast-mask": "defence",
}


@dataclass(frozen=True)
class File:
    """A shipped file; `stale` says why it is, if it is, and `renew` how it gets fresh."""

    name: str
    stale: str = ""
    renew: str = ""


def train(name: str) -> str:
    """The commands that train and ship a model."""
    return (
        f"mde train {RECIPES[name]} --config config/train/{name}.yaml --out runs/{name} &&"
        f" python scripts/ship.py runs/{name}/model.safetensors {name}"
    )


def checkpoint(path: Path) -> File:
    """A checkpoint, against what it was made from."""
    if path.stem in TRUNKS:
        base = path.with_name(f"{TRUNKS[path.stem]}.safetensors")
        theirs, ours = (read_tensors(p)[0] for p in (base, path))
        other = [k for k, v in theirs.items() if k not in ours or not torch.equal(ours[k], v)]
        if other:
            stale = f"{len(other)} of {len(theirs)} tensors of {base.name} are others in it"
            return File(path.name, stale, train(path.stem))
    for i, masked in enumerate(read_spec(path).masks):
        base = path.with_name(f"{masked.model}.safetensors")
        found = sha256_of(base) if base.is_file() else "no file"
        if found != masked.sha256:
            stale = f"made for {base.name} of {masked.sha256[:12]}…, which is {found[:12]} now"
            # It was trained for the first of them; of the others it only has to know the hash.
            again = f"python scripts/ship.py {path} {path.stem}" if i else train(path.stem)
            return File(path.name, stale, again)
    return File(path.name)


def graph(path: Path, model: str = "") -> File:
    """The ONNX file of a checkpoint, of a mask that with a model, against what it points into."""
    target = path.with_name(f"{model}{MASK}.onnx") if model else path.with_suffix(".onnx")
    renew = f"mde export {path} --linked"
    if model:
        renew += f" --model {path.with_name(model)}.safetensors --output {target}"
    if not target.is_file():
        return File(target.name, "there is none", renew)
    properties = onnx.load(target, load_external_data=False).metadata_props
    try:
        linked_weights(target, {entry.key: entry.value for entry in properties})
    except ModelError as error:
        return File(target.name, str(error).partition(": ")[2], renew)
    return File(target.name)


def card(path: Path) -> File:
    """The card of a checkpoint, against the hash that it names."""
    target, digest = path.with_suffix(".md"), sha256_of(path)
    text = target.read_text(encoding="utf-8") if target.is_file() else ""
    if digest in text:
        return File(target.name)
    stale = f"it does not name {path.name} of {digest[:12]}…" if text else "there is none"
    return File(target.name, stale, f"measure again, and write into it: SHA-256 `{digest}`")


def files(folder: Path) -> Iterator[File]:
    """Every shipped file, those first that others are made from."""
    order = ["student-fast", *TRUNKS]
    checkpoints = sorted(
        folder.glob("*.safetensors"),
        key=lambda p: (p.stem.endswith(MASK), p.stem not in order, p.stem in TRUNKS, p.stem),
    )
    for path in checkpoints:
        yield checkpoint(path)
        yield from (graph(path, m) for m in [m.model for m in read_spec(path).masks] or [""])
        yield card(path)


def main(folder: Path = WEIGHTS) -> int:
    """Print every file of a folder of weights; 1 if any is stale."""
    console, stale = Console(highlight=False, soft_wrap=True), 0
    for file in files(folder):
        if file.stale:
            stale += 1
            console.print(f"[red]stale[/red]  {file.name}: {file.stale}\n       {file.renew}")
        else:
            console.print(f"fresh  {file.name}")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
