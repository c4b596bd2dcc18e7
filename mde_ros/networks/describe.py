"""Size and cost of every network, measured on the network itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mde_ros.networks import NETWORKS, demands, make_network

INPUT = (304, 228)  # width, height in pixels, rounded to what a network demands


def multiply_adds(network: nn.Module, width: int, height: int) -> int:
    """Multiply-accumulate operations of all convolutions and matrix products for one image."""
    with torch.device("meta"):
        inputs = [torch.empty(1, 3, height, width)]
        if demands(network).get("takes_points"):
            inputs.append(torch.empty(1, 1, height, width))
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network.eval().to("meta")(*inputs)
    return counter.get_total_flops() // 2


def describe_all() -> list[dict[str, Any]]:
    """name, parameters, gmac, input and source of every network; no weights are made."""
    rows = []
    for name, entry in NETWORKS.items():
        with torch.device("meta"):
            network = make_network(name)
        needs = demands(network)
        multiple = needs.get("multiple", 1)
        width, height = (round(side / multiple) * multiple for side in INPUT)
        rows.append(
            {
                "name": name,
                "parameters": sum(p.numel() for p in network.parameters()),
                "gmac": round(multiply_adds(network, width, height) / 1e9, 3),
                "input": f"{width}x{height}" + (" + points" if needs.get("takes_points") else ""),
                "source": entry.source,
            }
        )
    return rows
