"""The state of a training on disk: all that going on from there needs, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from mde_ros.checkpoint import read_tensors, write_tensors
from mde_ros.config import ConfigError

STATE = "state.safetensors"
# What a training may be resumed with in another way than it was begun.
FREE = {f"loop.{k}" for k in ("steps", "threads", "workers", "save_every", "validate_every")}
FREE.add("loop.device")
console = Console(stderr=True)
Parts = dict[str, nn.Module | torch.optim.Optimizer]  # all that changes, by a name without dots


def save_state(path: Path, step: int, parts: Parts, settings: dict[str, Any]) -> None:
    """Weights, statistics and optimisers of all parts, and the settings they belong to."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            tensors |= {f"{name}.{k}": v for k, v in part.state_dict().items()}
            continue
        for index, slots in part.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
    write_tensors(path, tensors, {"step": step, "settings": settings})


def load_state(path: Path, parts: Parts, settings: dict[str, Any]) -> int:
    """Put back what save_state wrote; returns the step to go on with.

    Raises:
        ConfigError: when it is the state of another training.
    """
    tensors, header = read_tensors(path)
    if "step" in header:
        check_same(path, header.get("settings"), settings)
    shapes: dict[str, torch.Size] = {}
    averages: dict[str, torch.Size] = {}  # Adam has none of what had no gradient so far
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            shapes |= {f"{name}.{k}": v.shape for k, v in part.state_dict().items()}
        else:
            moving = [p.shape for group in part.param_groups for p in group["params"]]
            averages |= {f"{name}.{i}.exp_avg": shape for i, shape in enumerate(moving)}
    stored = {k: v.shape for k, v in tensors.items() if k in shapes}
    held = {k: v.shape for k, v in tensors.items() if k.endswith(".exp_avg")}
    if "step" not in header or stored != shapes or not held.items() <= averages.items():
        raise ConfigError(
            f"{path}: does not fit, it is the state of another network or settings; take an empty"
            " folder"
        )
    for name, part in parts.items():
        own = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
        if isinstance(part, nn.Module):
            part.load_state_dict(own)
            continue
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in own.items():
            index, _, slot = key.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})
    return int(header["step"])


def check_same(path: Path, stored: dict[str, Any] | None, settings: dict[str, Any]) -> None:
    """Hold the settings of a stored state against those of this training.

    Raises:
        ConfigError: naming the first setting outside FREE that differs.
    """
    if stored is None:
        console.print(f"{path} does not say with which settings it was made; they are not checked")
        return
    old, new = dict(_leaves(stored)), dict(_leaves(json.loads(json.dumps(settings))))
    for key in {**new, **old}:
        if key not in FREE and old.get(key, "nothing") != new.get(key, "nothing"):
            raise ConfigError(
                f"{path}: expected the state of a training with {key} ="
                f" {new.get(key, 'nothing')!r}, got one with {old.get(key, 'nothing')!r}; choose"
                " another --out, or delete it to begin anew"
            )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything inside nested dictionaries and lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{i}]")
    else:
        yield name, value
