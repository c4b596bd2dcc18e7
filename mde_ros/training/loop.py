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
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint, load, read_tensors, save, write_tensors
from mde_ros.config import ConfigError, check, setting
from mde_ros.networks.backbones import Backbone, load_imagenet

STATE = "state.safetensors"
# What a training may be resumed with in another way than it was begun.
FREE = {f"loop.{k}" for k in ("steps", "threads", "workers", "save_every", "validate_every")}
FREE.add("loop.device")
console = Console(stderr=True)


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
    schedule: str = setting("cosine", "what follows", choices=("cosine", "constant", "step"))
    decay: float = setting(1.0, "share of the run in which the cosine falls", low=0.0, high=1.0)
    step_every: int = setting(0, "schedule step: x0.1 after so many steps", low=0)
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
    return 1.0


def load_encoder(network: nn.Module, name: str, initial: str) -> None:
    """Start from a checkpoint, or from ImageNet weights of the encoder.

    Of another network's checkpoint all tensors of the same name and shape are taken, and the
    encoder must be among them.

    Raises:
        ConfigError: when the file is neither.
    """
    path = Path(os.path.expandvars(initial))
    try:
        if path.suffix == ".safetensors":
            loaded = load(path)
            own, given = network.state_dict(), loaded.network.state_dict()
            shared = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
            if not all(k in shared for k in own if k.startswith("encoder.")):
                raise ConfigError(f"{loaded.network_name} has another encoder than {name}")
            network.load_state_dict(shared, strict=False)
        else:
            # Public ImageNet weights come as .pt; weights_only admits tensors and no code.
            weights = torch.load(path, map_location="cpu", weights_only=True)
            load_imagenet(cast(Backbone, network.encoder), weights)
    except Exception as error:  # torch.load raises whatever a foreign file makes it
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ConfigError(f"initial: {path} cannot be used ({reason})") from None


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
    if settings.threads:
        torch.set_num_threads(settings.threads)
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


def save_state(
    path: Path,
    step: int,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
) -> None:
    """All that resuming needs, in one safetensors file, and the settings it belongs to."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
    write_tensors(path, tensors, {"step": step, "settings": settings})


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


def load_state(
    path: Path,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
) -> int:
    """Put back what save_state wrote; returns the step to go on with.

    Raises:
        ConfigError: when it is the state of another training.
    """
    tensors, header = read_tensors(path)
    if "step" in header:
        check_same(path, header.get("settings"), settings)
    shapes = {f"network.{k}": v.shape for k, v in network.state_dict().items()}
    moving = [p.shape for group in optimizer.param_groups for p in group["params"]]
    if header.get("step"):  # Adam has no averages before its first step
        shapes |= {f"optimizer.{i}.exp_avg": shape for i, shape in enumerate(moving)}
    stored = {k: v.shape for k, v in tensors.items() if k in shapes or k.endswith(".exp_avg")}
    if "step" not in header or stored != shapes:
        raise ConfigError(
            f"{path}: does not fit, it is the state of another network or settings; take an empty"
            " folder"
        )
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    network.load_state_dict(parts["network"])
    ema.load_state_dict(parts["ema"])
    state = optimizer.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": state["param_groups"]})
    return int(header["step"])


def fit(
    fabric: Fabric,
    checkpoint: Checkpoint,
    batches: Callable[[int, int], Iterable[dict[str, Tensor]]],
    loss_of: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    settings: LoopSettings,
    out: Path,
    validate: Callable[[Path], dict[str, float]] | None = None,
) -> Path:
    """Train checkpoint.network and write the averaged weights to out/model.safetensors.

    Args:
        batches: (first, last) → the batches of these steps.
        loss_of: (network, batch) → scalar.
        validate: the kept checkpoint → figures for the log.

    A state from which the same call goes on is kept in `out`; Ctrl-C saves one and ends.
    """
    network = freeze(checkpoint.network.train(), settings.frozen)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = deepcopy(network).eval().to(fabric.device)
    optimizer = make_optimizer(network, settings)
    wrapped, fabric_optimizer = fabric.setup(network, optimizer)
    first, kept = 0, out / "model.safetensors"
    if (out / STATE).is_file():
        first = load_state(out / STATE, network, ema, optimizer, checkpoint.settings)
        console.print(f"resuming at step {first} of {settings.steps} from {out / STATE}")

    saved = -1  # the step of the last state that was written

    def keep(step: int) -> None:
        nonlocal saved
        if fabric.global_rank == 0 and step != saved:
            save_state(out / STATE, step, network, ema, optimizer, checkpoint.settings)
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
                for group in optimizer.param_groups:
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
