"""The loop every recipe runs: seeding, device and DDP, EMA, checkpoint, resume, progress."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint, save
from mde_ros.config import ConfigError, check, setting
from mde_ros.training.state import STATE, Parts, console, load_state, save_state

# Before any pipeline in this process has set it for its network.
ALL_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class LoopSettings:
    """How long, how fast and where to train."""

    steps: int = setting(10_000, "optimiser steps", low=1)
    batch: int = setting(16, "images per step, over all processes", low=1)
    lr: float = setting(1e-3, "peak learning rate", low=0.0)
    encoder_lr: float = setting(3e-4, "peak learning rate of the pre-trained encoder", low=0.0)
    optimizer: str = setting(
        "adamw", "adam adds the decay to the gradient", choices=("adamw", "adam")
    )
    weight_decay: float = setting(1e-2, "weight decay; none on norms and biases", low=0.0)
    warmup: int = setting(300, "steps of linear warm-up", low=0)
    schedule: str = setting(
        "cosine", "what follows", choices=("cosine", "constant", "step", "halve")
    )
    decay: float = setting(1.0, "share of the run in which the cosine falls", low=0.0, high=1.0)
    step_every: int = setting(0, "schedule step: x0.1 after so many steps; halve: x0.5", low=0)
    clip: float = setting(5.0, "largest gradient norm, 0 = any", low=0.0)
    ema: float = setting(0.999, "decay of the averaged weights that are kept", low=0.0, high=1.0)
    frozen: tuple[str, ...] = setting((), "submodules that keep their initial weights")
    seed: int = setting(0, "of everything random", low=0)
    precision: str = setting(
        "bf16-mixed", "arithmetic of the network", choices=("32-true", "bf16-mixed", "16-mixed")
    )
    device: str = setting("auto", "accelerator", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "CPU threads of torch, 0 = all", low=0)
    workers: int = setting(1, "processes that prepare batches", low=0)
    save_every: int = setting(250, "steps between two resumable states", low=1)
    validate_every: int = setting(1000, "steps between two validations", low=1)

    def __post_init__(self) -> None:
        check(self)


def rate(settings: LoopSettings, step: int) -> float:
    """Factor on the peak learning rate at a step."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "cosine":
        first = max(settings.warmup, settings.steps * (1 - settings.decay))
        done = (step - first) / max(1, settings.steps - first)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
    if settings.schedule == "step" and settings.step_every:
        return 0.1 ** (step // settings.step_every)
    if settings.schedule == "halve" and settings.step_every:
        return 0.5 ** (step // settings.step_every)
    return 1.0


def freeze(network: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """Keep the weights and statistics of these submodules as they are; returns the network.

    Raises:
        ConfigError: on a name that the network does not have.
    """
    for name in names:
        try:
            network.get_submodule(name).eval().requires_grad_(False)
        except AttributeError:
            known = ", ".join(n for n, _ in network.named_children())
            raise ConfigError(f"frozen: no submodule {name!r}; the network has {known}") from None
    return network


def make_optimizer(network: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """Adam or AdamW; the encoder has a rate of its own, norms and biases no decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        key = (name.startswith("encoder."), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(
        [
            {
                "params": parameters,
                "peak": settings.encoder_lr if encoder else settings.lr,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (encoder, decays), parameters in groups.items()
        ],
        lr=settings.lr,
    )


def make_fabric(settings: LoopSettings) -> Fabric:
    """Device, precision and processes; under torchrun it joins the group torchrun started."""
    # torchrun says how many processes there are; Fabric alone would take a CPU for one device.
    launched = torch.distributed.is_torchelastic_launched()
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if launched else 1
    fabric = Fabric(
        accelerator=settings.device,
        strategy="ddp" if launched else "auto",
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local if launched else 1,
        precision=settings.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    torch.manual_seed(settings.seed)
    return fabric


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """ema ← decay · ema + (1 - decay) · network, buffers included."""
    for kept, new in zip(ema.state_dict().values(), network.state_dict().values()):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done, so that weights and step count always agree."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if waiting:
        signal.raise_signal(signal.SIGINT)


@dataclass(frozen=True)
class Companion:
    """A network that is trained beside another one, each step after it, and is not kept.

    Attributes:
        network: as it is, not as Fabric wraps it.
        optimizer: as Fabric wraps it; its rate follows the schedule where its groups have a peak.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer


def fit(
    fabric: Fabric,
    checkpoint: Checkpoint,
    batches: Callable[[int, int], Iterable[dict[str, Tensor]]],
    loss_of: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    settings: LoopSettings,
    out: Path,
    validate: Callable[[Path], dict[str, float]] | None = None,
    companion: Companion | None = None,
) -> Path:
    """Train checkpoint.network and write the averaged weights to out/model.safetensors.

    Args:
        batches: (first, last) → the batches of these steps.
        loss_of: (network, batch) → scalar.
        validate: the kept checkpoint → figures for the log.
        companion: what is trained by its side; loss_of leaves gradients on it.

    A state from which the same call goes on is kept in `out`; Ctrl-C saves one and ends.
    """
    # A pipeline, say a teacher's, has set them to its own for the whole process.
    torch.set_num_threads(settings.threads or ALL_THREADS)
    network = freeze(checkpoint.network.train(), settings.frozen)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = deepcopy(network).eval().to(fabric.device)
    optimizer = make_optimizer(network, settings)
    wrapped, fabric_optimizer = fabric.setup(network, optimizer)
    first, kept = 0, out / "model.safetensors"
    parts: Parts = {"network": network, "ema": ema, "optimizer": optimizer}
    if companion:
        parts |= {"companion": companion.network, "companion_optimizer": companion.optimizer}
    if (out / STATE).is_file():
        first = load_state(out / STATE, parts, checkpoint.settings)
        console.print(f"resuming at step {first} of {settings.steps} from {out / STATE}")

    saved = -1  # the step of the last state that was written

    def keep(step: int) -> None:
        nonlocal saved
        if fabric.global_rank == 0 and step != saved:
            save_state(out / STATE, step, parts, checkpoint.settings)
            save(kept, replace(checkpoint, network=ema))
            saved = step

    columns = (
        "{task.description}",
        BarColumn(),
        "{task.completed}/{task.total}",
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
        "{task.fields[note]}",
    )
    hidden = fabric.global_rank != 0 or not console.is_terminal
    step, mean_loss, began = first, float("nan"), time.monotonic()
    with Progress(*columns, console=console, disable=hidden) as progress:
        task = progress.add_task("training", total=settings.steps, completed=first, note="")
        try:
            for batch in batches(first, settings.steps):
                batch = {k: v.to(fabric.device, non_blocking=True) for k, v in batch.items()}
                beside = companion.optimizer.param_groups if companion else []
                for group in (*optimizer.param_groups, *beside):
                    if "peak" in group:
                        group["lr"] = group["peak"] * rate(settings, step)
                loss = loss_of(wrapped, batch)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the loss is {value} at step {step + 1}; lower the rate"
                    )
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                if settings.clip:
                    norm = fabric.clip_gradients(
                        wrapped, fabric_optimizer, max_norm=settings.clip, error_if_nonfinite=False
                    )
                    # In fp16 the scaler skips such a step and goes on with a smaller scale.
                    if settings.precision != "16-mixed" and not norm.isfinite():  # type: ignore[union-attr]
                        raise FloatingPointError(
                            f"the gradient is {float(norm)} at step {step + 1}; lower the rate"  # type: ignore[arg-type]
                        )
                with uninterrupted():
                    fabric_optimizer.step()
                    if companion:
                        companion.optimizer.step()
                        companion.optimizer.zero_grad(set_to_none=True)
                    # A short average at the start, a long one later.
                    update_ema(ema, network, min(settings.ema, (1 + step) / (10 + step)))
                    step += 1
                mean_loss = value if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * value
                progress.update(task, completed=step, note=f"loss {mean_loss:.4f}")
                if step % settings.save_every == 0:
                    keep(step)
                    if hidden and fabric.global_rank == 0:
                        left = (time.monotonic() - began) / (step - first) * (settings.steps - step)
                        console.print(
                            f"step {step}/{settings.steps} loss {mean_loss:.4f}"
                            f" left {left / 60:.0f} min"
                        )
                due = step % settings.validate_every == 0 or step == settings.steps
                if validate and due and fabric.global_rank == 0:
                    keep(step)
                    log(out, {"step": step, "loss": mean_loss, **validate(kept)})
        except KeyboardInterrupt:
            keep(step)
            console.print(f"stopped at step {step}; the same command goes on from there")
            raise
    keep(step)
    return kept


def log(out: Path, row: dict[str, Any]) -> None:
    """Append one line of figures to out/log.jsonl and show it."""
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    console.print("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
