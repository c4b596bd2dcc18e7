"""What a frozen network's batch norms remember of the images that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms that keep statistics."""
    norms = (m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    return [m for m in norms if m.running_mean is not None]


def statistics_loss(
    network: nn.Module, images: Tensor, gather: Callable[..., Any] | None = None
) -> Tensor:
    """How far images are from a network's training data, as its batch norms see them.

    L_BN = Σ_l ‖μ_l - μ̂_l‖₂ + ‖σ²_l - σ̂²_l‖₂ over the batch norms l: mean and biased variance over
    (N, H, W) of their inputs against those stored (the form of NVlabs/DeepInversion; METHODS 6).

    Args:
        network: frozen, in eval mode; it is run once.
        images: (N, 3, H, W), normalised; the gradient goes to them.
        gather: Fabric.all_gather, where a batch is shared by several processes: the statistics are
            then those of the whole batch.
    """
    taken: list[tuple[nn.BatchNorm2d, Tensor]] = []

    def take(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        taken.append((norm, torch.stack([mean, variance])))

    hooks = [norm.register_forward_pre_hook(take) for norm in batch_norms(network)]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    own = torch.cat([statistics for _, statistics in taken], 1)  # (2, channels of all)
    each = (own if gather is None else gather(own, sync_grads=True)).view(-1, *own.shape)
    mean = each[:, 0].mean(0)
    variance = each[:, 1].mean(0) + (each[:, 0] - mean).square().mean(0)
    loss, first = mean.new_zeros(()), 0
    for norm, statistics in taken:
        part = slice(first, first := first + statistics.shape[1])
        for given, stored in ((mean, norm.running_mean), (variance, norm.running_var)):
            loss = loss + torch.linalg.vector_norm(given[part] - stored)  # type: ignore[operator]
    return loss
