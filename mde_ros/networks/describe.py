"""Size and cost of every network, measured on the network itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mde_ros.networks import NETWORKS, make_network

INPUT = (304, 228)  # width, height in pixels


def multiply_adds(network: nn.Module, width: int, height: int) -> int:
    """Multiply-accumulate operations of all convolutions and linear layers for one image."""
    total = 0

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output.numel() // output.shape[1] * weight.numel()

    hooks = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    try:
        with torch.device("meta"):
            network.eval().to("meta")(torch.empty(1, 3, height, width))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def describe_all() -> list[dict[str, Any]]:
    """name, parameters, gmac, input (WxH) and source of every network; no weights are made."""
    rows = []
    for name, entry in NETWORKS.items():
        with torch.device("meta"):
            network = make_network(name)
        rows.append(
            {
                "name": name,
                "parameters": sum(p.numel() for p in network.parameters()),
                "gmac": round(multiply_adds(network, *INPUT) / 1e9, 3),
                "input": f"{INPUT[0]}x{INPUT[1]}",
                "source": entry.source,
            }
        )
    return rows
