"""Elastic weight consolidation: what mattered to old tasks is held (Kirkpatrick et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mde_ros.training.batches import Batches

Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def fisher_diagonal(
    network: nn.Module, loss_of: Loss, batches: Batches, number: int
) -> dict[str, Tensor]:
    """Mean squared gradient of the loss of the first `number` batches, for each parameter.

    A batch of one frame each makes it the Fisher information's diagonal as far as it is known from
    samples. The network is left in eval mode and as it was.
    """
    network.eval()
    parameters = dict(network.named_parameters())
    fisher = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for step in range(number):
        batch = {k: v.to(next(network.parameters()).device) for k, v in batches[step].items()}
        gradients = torch.autograd.grad(
            loss_of(network, batch),
            list(parameters.values()),
            allow_unused=True,
            materialize_grads=True,
        )
        for total, gradient in zip(fisher.values(), gradients):
            total += gradient.square() / number
    return fisher


def with_penalty(
    loss_of: Loss, network: nn.Module, fisher: dict[str, Tensor], weight: float
) -> Loss:
    """A loss, and weight/2 Σ F (θ - θ*)² over the network's parameters; θ* is what they are now."""
    anchor = {name: p.detach().clone() for name, p in network.named_parameters()}

    def of(wrapped: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        penalty = sum(
            (fisher[name] * (p - anchor[name]).square()).sum()
            for name, p in network.named_parameters()
        )
        return loss_of(wrapped, batch) + weight / 2 * penalty

    return of
