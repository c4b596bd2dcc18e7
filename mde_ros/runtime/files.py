"""Models and masks as files: where they are, what their headers say, whether they fit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from mde_ros.runtime.spec import Masked, ModelError, ModelSpec, Runtime, spec_from_json

MASK = "-mask"  # MODEL-mask.safetensors, and MODEL-mask.onnx, which holds the model too


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_models() -> list[str]:
    """Names of the models that come with the package; their masks are none."""
    folder = resources.files("mde_ros") / "weights"
    names = (f.name[: -len(".onnx")] for f in folder.iterdir() if f.name.endswith(".onnx"))
    return sorted(name for name in names if not name.endswith(MASK))


def find_model(model: str, suffix: str) -> Path:
    """Path of a shipped model's file of this suffix, or of the file itself.

    Raises:
        ModelError: when there is neither, naming the shipped ones.
    """
    from mde_ros.weights import COMPLETION, DEFAULT

    names = {"default": DEFAULT, "completion": COMPLETION, **{n: n for n in shipped_models()}}
    if model in names:
        shipped = Path(str(resources.files("mde_ros") / "weights" / f"{names[model]}{suffix}"))
        if not shipped.is_file():
            raise ModelError(f"model: {shipped.name} does not come with this installation")
        return shipped
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError(
            f"model: expected {', '.join(names)} or an existing .onnx or .safetensors file,"
            f" got {model!r}"
        )
    if path.suffix not in (".onnx", ".safetensors"):
        raise ModelError(
            f"model: expected a .onnx or .safetensors file, got {path.name!r}"
            " (pickled weights are never loaded; convert them with `mde export`)"
        )
    return path


def find_mask(mask: str, model: Runtime) -> Path:
    """The file that lets a loaded model's runtime run it with a mask.

    For torch that is the mask's checkpoint, otherwise an ONNX file of both. auto is MODEL-mask
    beside the model, or, for torch, any checkpoint NAME-mask there that names the model's hash.

    Raises:
        ModelError: when there is none, saying what to do.
    """
    suffix = ".safetensors" if model.name == "torch" else ".onnx"
    if mask == "auto":
        path = model.path.with_name(f"{model.path.stem}{MASK}{suffix}")
        if path.is_file():
            return path
        others = model.path.parent.glob(f"*{MASK}{suffix}") if model.name == "torch" else ()
        for other in sorted(others):
            if model.weights_sha256 in {m.sha256 for m in read_spec(other).masks}:
                return other
        raise ModelError(
            f"mask: there is none for {model.path.name} ({path.name} is not beside it); train one"
            " with `mde train defence`, or choose another model"
        )
    path = Path(mask).expanduser()
    if not path.is_file() or path.suffix not in (".onnx", ".safetensors"):
        raise ModelError(
            f"mask: expected auto or an existing .safetensors or .onnx file, got {mask!r}"
        )
    if not path.with_suffix(suffix).is_file():
        remedy = f"use `mde export {path.name}` first" if suffix == ".onnx" else "use onnxruntime"
        raise ModelError(f"mask: {model.name} runs {suffix}, got {path.name}; {remedy}")
    return path.with_suffix(suffix)


def check_mask(path: Path, masks: tuple[Masked, ...], model: str, sha256: str) -> None:
    """Refuse a mask that was trained for another model, or for other weights of this one.

    Args:
        path, masks: the mask's file, and the models that it says it may be used with.
        model, sha256: the file that it is to be used with, and the hash of its checkpoint.
    """
    if not masks:
        raise ModelError(f"mask: expected a mask, {path.name} is a network of another kind")
    if sha256 not in {m.sha256 for m in masks}:
        expected = ", ".join(f"{m.model} of SHA-256 {m.sha256[:12]}…" for m in masks)
        raise ModelError(
            f"mask: {path.name} belongs to {expected}, got {model} of {sha256[:12]}…; train one"
            " with `mde train defence`, or choose its model"
        )


def read_spec(path: Path) -> ModelSpec:
    """The spec in a checkpoint, read without torch.

    Raises:
        ModelError: when it is no checkpoint of this package.
    """
    about = read_header(path).get("__metadata__", {})
    try:
        return spec_from_json(json.dumps(json.loads(about["mde_ros"])["spec"]), str(path))
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ModelError(f"{path}: expected a checkpoint of this package") from None


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, read without loading tensors.

    Raises:
        ModelError: when the file is missing, truncated or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(100_000_000, path.stat().st_size - 8):
                raise ValueError("the length of its header does not fit its size")
            header = json.loads(file.read(length))
        ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        if max(ends, default=0) + 8 + length != path.stat().st_size:
            raise ValueError("it is truncated")
        return header
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from None


def linked_weights(path: Path, about: Mapping[str, str]) -> str | None:
    """Hash of the checkpoint that an ONNX file points into; None when it holds its own weights.

    Raises:
        ModelError: when that checkpoint, or that of the mask, has changed since the export.
    """
    if "weights" not in about:
        return None
    for kind in ("weights", "mask") if "mask" in about else ("weights",):
        linked, expected = path.with_name(Path(about[kind]).name), about[f"{kind}_sha256"]
        found = sha256_of(linked) if linked.is_file() else "no file"
        if found != expected:
            raise ModelError(
                f"{path}: expected {linked.name} beside it with SHA-256 {expected[:12]}…,"
                f" got {found[:12]}; export it again"
            )
    return about["weights_sha256"]


def unreadable(path: Path, error: Exception) -> ModelError:
    """The sentence for an ONNX file that a library refused.

    A file linked to a checkpoint (see export.link) is refused too when that checkpoint is missing
    or of another size. What it says of it is looked up in its bytes: two string fields, each after
    a tag and a length (protobuf's StringStringEntryProto).
    """
    data = path.read_bytes()
    fields = re.finditer(rb"\x0a.((?:weights|mask)(?:_sha256)?)\x12(.)", data, re.DOTALL)
    about = {m[1].decode(): data[m.end() :][: m[2][0]].decode("utf-8", "replace") for m in fields}
    try:
        linked_weights(path, about)
    except ModelError as known:
        return known
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ModelError(f"{path}: not a readable ONNX network ({reason})")
