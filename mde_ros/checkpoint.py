"""Weights + network name + spec + settings ↔ ready module, in one safetensors file (no pickle).

The file's metadata holds one JSON document under the key `mde_ros`; tensors may be stored as fp16.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mde_ros.networks import demands, make_network


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message says why."""


@dataclass
class Checkpoint:
    """A network with all that is needed to run or go on training it.

    Attributes:
        network_name: its key in NETWORKS.
        network: the module, weights loaded, on the CPU in fp32.
        spec: how it wants its input (the non-default fields of runtime.ModelSpec); what the
            network's class demands need not be said.
        settings: the effective settings of the training that made it.
    """

    network_name: str
    network: nn.Module
    spec: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = demands(self.network) | self.spec


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a safetensors file with a JSON header, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    unshared = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(unshared, partial, {"mde_ros": json.dumps(header)})
    partial.chmod(0o644)  # safetensors writes files that only their owner can read
    partial.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON header of a file written by write_tensors.

    Raises:
        CheckpointError: when it is missing, truncated, no safetensors file or not one of this
            package.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
    try:
        header = json.loads(metadata["mde_ros"])
    except (KeyError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path}: expected a checkpoint of this package, but its description is missing"
        ) from None
    return tensors, header


def save(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write a checkpoint; `half` stores floating-point tensors as fp16.

    Raises:
        CheckpointError: when a weight is too large for fp16; nothing is written.
    """
    tensors = {
        name: value.half() if half and value.is_floating_point() else value
        for name, value in checkpoint.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, value in tensors.items():
        if half and value.isinf().any():
            raise CheckpointError(f"{path}: {name} has values too large for fp16")
    header = {
        "network": checkpoint.network_name,
        "spec": checkpoint.spec,
        "settings": checkpoint.settings,
    }
    options = getattr(checkpoint.network, "options", None)
    if options:  # of a network that its name alone does not make
        header["options"] = options
    write_tensors(path, tensors, header)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and build its network, in eval mode.

    Raises:
        CheckpointError: when the file is damaged, foreign, or does not fit its network.
    """
    tensors, header = read_tensors(path)
    if not isinstance(header, dict) or not isinstance(header.get("network"), str):
        raise CheckpointError(f"{path}: expected a checkpoint, but no network is named in it")
    try:
        network = make_network(header["network"], **header.get("options", {}))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    own = network.state_dict()
    expected = {k for k in own if not k.endswith("num_batches_tracked")}
    if set(tensors) != expected or any(tensors[k].shape != own[k].shape for k in expected):
        raise CheckpointError(f"{path}: its weights do not fit network {header['network']!r}")
    if not all(torch.isfinite(v).all() for v in tensors.values()):
        raise CheckpointError(f"{path}: some of its weights are not finite")
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()}, strict=False)
    return Checkpoint(
        header["network"], network.eval(), header.get("spec", {}), header.get("settings", {})
    )
