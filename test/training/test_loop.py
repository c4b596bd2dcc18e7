"""The loop: resuming is exact, averages and rates follow their formulas, mistakes are sentences."""

import json
import math
import signal

import pytest
import torch
from torch import nn

from mde_ros.checkpoint import Checkpoint, load, read_tensors, save, write_tensors
from mde_ros.config import ConfigError, as_dict
from mde_ros.networks import make_network
from mde_ros.training import loop
from mde_ros.training.loop import (
    STATE,
    Companion,
    LoopSettings,
    fit,
    freeze,
    make_fabric,
    make_optimizer,
    rate,
    update_ema,
)

NAME = "fast_mobilenet_v2"
QUICK = {
    "steps": 6,
    "warmup": 2,
    "device": "cpu",
    "precision": "32-true",
    "threads": 1,
    "save_every": 100,
}


def batches(first, last):
    """Batch number `step` is the same whenever it is asked for."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        yield {"x": torch.rand(2, 3, 32, 32, generator=generator)}


def loss_of(network, batch):
    x = batch["x"]
    return (network(x).log() - x[:, :1, ::2, ::2]).square().mean()


def run(
    out, batches=batches, loss_of=loss_of, validate=None, seed=0, name=NAME, beside=None, **settings
):
    settings = LoopSettings(**{**QUICK, **settings})
    fabric = make_fabric(settings)
    companion = beside and Companion(beside, torch.optim.Adam(beside.parameters(), 0.1))
    torch.manual_seed(seed)
    effective = {"loop": as_dict(settings)}
    checkpoint = Checkpoint(name, make_network(name), {"focal_px": 100.0}, effective)
    return fit(fabric, checkpoint, batches, loss_of, settings, out, validate, companion)


def ctrl_c_before(step):
    """Batches that are interrupted when this one is asked for."""

    def interrupted(first, last):
        yield from batches(first, step)
        raise KeyboardInterrupt

    return interrupted


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


def assert_same_training(out, expected):
    for file in (STATE, "model.safetensors"):
        tensors, header = read_tensors(out / file)
        others, other_header = read_tensors(expected / file)
        assert tensors.keys() == others.keys()
        unequal = [k for k in tensors if not torch.equal(tensors[k], others[k])]
        assert not unequal, f"{len(unequal)} tensors of {file} differ, e.g. {unequal[0]}"
        assert header.get("step") == other_header.get("step")


@pytest.mark.parametrize("step", [0, 3])
def test_training_resumed_after_ctrl_c_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path, uninterrupted, step
):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ctrl_c_before(step))
    assert read_tensors(tmp_path / STATE)[1]["step"] == step
    assert load(tmp_path / "model.safetensors").network_name == NAME
    run(tmp_path, seed=99)  # the state counts, not the fresh weights
    assert_same_training(tmp_path, uninterrupted)


def test_ctrl_c_amid_a_step_waits_until_weights_and_count_agree(
    tmp_path, uninterrupted, monkeypatch
):
    def interrupted_ema(*arguments, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        update_ema(*arguments)

    monkeypatch.setattr(loop, "update_ema", interrupted_ema)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert read_tensors(tmp_path / STATE)[1]["step"] == 4
    run(tmp_path)
    assert_same_training(tmp_path, uninterrupted)


def test_resuming_a_finished_training_changes_nothing(tmp_path, uninterrupted):
    for file in (STATE, "model.safetensors"):
        (tmp_path / file).write_bytes((uninterrupted / file).read_bytes())
    run(tmp_path, seed=99)
    tensors, expected = (read_tensors(p / STATE)[0] for p in (tmp_path, uninterrupted))
    assert all(torch.equal(tensors[k], expected[k]) for k in expected)


def test_companion_learns_in_turn_with_the_network_and_resumes_with_it(tmp_path):
    """Its gradients are those that the loss leaves; one network's are not the other's."""

    def training(out, batches=batches):
        torch.manual_seed(1)
        beside = nn.Conv2d(3, 3, 1)
        start = beside.weight.detach().clone()

        def joint(network, batch):
            made = beside(batch["x"])
            (made - 1).square().mean().backward()
            return loss_of(network, {"x": made.detach()})

        run(out, batches, joint, beside=beside)
        return start, beside

    start, whole = training(tmp_path / "whole")
    assert (whole.weight - start).abs().min() > 0.2  # Adam: up to 0.1 a step, of six
    assert whole.weight.grad is None
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "parts", ctrl_c_before(3))
    _, resumed = training(tmp_path / "parts")
    assert torch.equal(resumed.weight, whole.weight)
    assert_same_training(tmp_path / "parts", tmp_path / "whole")
    with pytest.raises(ConfigError, match="does not fit"):
        run(tmp_path / "parts")  # without it


def test_folder_holds_whole_files_only(uninterrupted):
    assert sorted(p.name for p in uninterrupted.iterdir()) == ["model.safetensors", STATE]


def test_state_of_another_training_is_refused_in_one_sentence(tmp_path, uninterrupted):
    (tmp_path / STATE).write_bytes((uninterrupted / STATE).read_bytes())
    with pytest.raises(ConfigError, match="does not fit, it is the state of another") as caught:
        run(tmp_path, name="light_mobilenet_v2")
    assert "\n" not in str(caught.value)
    (tmp_path / STATE).write_bytes((uninterrupted / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="does not fit"):
        run(tmp_path)


OTHERS = {
    "lr = 0.5, got one with 0.001": {"lr": 0.5},
    "optimizer = 'adam', got one with 'adamw'": {"optimizer": "adam"},
    "frozen\\[0\\] = 'encoder', got one with 'nothing'": {"frozen": ("encoder",)},
}


@pytest.mark.parametrize("message", OTHERS)
def test_state_of_other_settings_is_refused_with_the_first_that_differs(
    tmp_path, uninterrupted, message
):
    (tmp_path / STATE).write_bytes((uninterrupted / STATE).read_bytes())
    with pytest.raises(ConfigError, match=f"expected the state of a training with loop.{message}"):
        run(tmp_path, **OTHERS[message])
    assert (tmp_path / STATE).read_bytes() == (uninterrupted / STATE).read_bytes()


def test_length_threads_and_places_to_save_may_change_on_resuming(tmp_path, uninterrupted):
    (tmp_path / STATE).write_bytes((uninterrupted / STATE).read_bytes())
    run(tmp_path, steps=7, threads=2, workers=0, save_every=1, validate_every=3, device="auto")
    assert read_tensors(tmp_path / STATE)[1]["step"] == 7


def test_state_that_names_no_settings_is_taken_with_a_warning(tmp_path, uninterrupted, capsys):
    """As they were before settings were kept with them."""
    tensors, header = read_tensors(uninterrupted / STATE)
    write_tensors(tmp_path / STATE, tensors, {"step": header["step"]})
    run(tmp_path, lr=0.5)
    assert "does not say with which settings" in " ".join(capsys.readouterr().err.split())


def test_gradient_that_is_no_number_stops_too(tmp_path):
    """√0 is 0, its derivative infinite."""

    def cliff(network, batch):
        return (network(batch["x"]) * 0).sum().sqrt()

    with pytest.raises(FloatingPointError, match="the gradient is nan at step 1; lower the rate"):
        run(tmp_path, loss_of=cliff)
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path, value):
    def exploding(network, batch, calls=[]):  # noqa: B006
        calls.append(1)
        return loss_of(network, batch) * (value if len(calls) == 4 else 1)

    with pytest.raises(FloatingPointError, match=f"the loss is {value} at step 4; lower the rate"):
        run(tmp_path, loss_of=exploding, save_every=2)
    tensors, header = read_tensors(tmp_path / STATE)
    assert header["step"] == 2
    assert all(v.isfinite().all() for v in tensors.values())
    assert load(tmp_path / "model.safetensors")


def test_figures_of_the_kept_weights_are_logged_when_due(tmp_path):
    seen = []

    def validate(kept):
        seen.append(load(kept).network_name)
        return {"rmse_m": 0.5}

    out = tmp_path / "not" / "there" / "yet"
    run(out, validate=validate, validate_every=4)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(r["step"], r["rmse_m"]) for r in rows] == [(4, 0.5), (6, 0.5)]
    assert seen == [NAME, NAME]


def test_frozen_submodules_keep_weights_and_statistics(tmp_path):
    torch.manual_seed(0)
    before = make_network(NAME).state_dict()
    run(tmp_path, frozen=("encoder", "fuse"), ema=0.0, lr=1e-2)
    after = load(tmp_path / "model.safetensors").network.state_dict()
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"gates", "fuse_up", "refine"}


def test_unknown_frozen_name_lists_the_submodules():
    with pytest.raises(
        ConfigError, match="no submodule 'backbone'; the network has encoder, gates"
    ):
        freeze(make_network(NAME), ("backbone",))


def test_kept_weights_without_averaging_are_the_last_ones(tmp_path):
    run(tmp_path, ema=0.0)
    tensors, _ = read_tensors(tmp_path / STATE)
    kept = load(tmp_path / "model.safetensors").network.state_dict()
    assert all(torch.equal(kept[k], tensors[f"network.{k}"]) for k in kept if "tracked" not in k)


def test_average_follows_its_closed_form():
    """With constant weights w and start a: after n updates, w + (a - w) dⁿ."""
    kept, new = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    new.weight.data.fill_(5.0)
    new.running_mean.fill_(2.0)
    new.num_batches_tracked.fill_(7)
    for _ in range(10):
        update_ema(kept, new, 0.9)
    assert kept.weight.tolist() == pytest.approx([5 + (1 - 5) * 0.9**10] * 3, rel=1e-5)
    assert kept.running_mean.tolist() == pytest.approx([2 - 2 * 0.9**10] * 3, rel=1e-5)
    assert kept.num_batches_tracked == 7 and kept.weight.requires_grad


SCHEDULES = [
    ({"warmup": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 52: 0.5, 100: 0.0}),
    ({"warmup": 0}, {0: 1.0, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2}),
    ({"warmup": 2, "schedule": "constant"}, {0: 0.5, 1: 1.0, 2: 1.0, 99: 1.0}),
    (
        {"warmup": 0, "schedule": "step", "step_every": 30},
        {0: 1.0, 29: 1.0, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.001},
    ),
]


@pytest.mark.parametrize(("settings", "factors"), SCHEDULES)
def test_rate_follows_its_schedule(settings, factors):
    settings = LoopSettings(steps=100, **settings)
    assert {s: rate(settings, s) for s in factors} == pytest.approx(factors, abs=1e-12)


def test_encoder_has_its_own_rate_and_norms_and_biases_no_decay():
    network = make_network(NAME)
    optimizer = make_optimizer(network, LoopSettings(lr=1e-2, encoder_lr=1e-3, weight_decay=0.1))
    groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert len(groups) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        group = groups[id(parameter)]
        assert group["peak"] == (1e-3 if name.startswith("encoder.") else 1e-2), name
        assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), name


def test_first_step_of_adam_moves_every_weight_by_the_rate_of_its_step(tmp_path):
    """Adam's first update is lr · sign(gradient); warm-up 2 halves the peak."""
    torch.manual_seed(0)
    before = dict(make_network(NAME).named_parameters())
    run(tmp_path, steps=1, lr=1e-3, encoder_lr=2e-4, weight_decay=0.0, optimizer="adam", ema=0.0)
    after = load(tmp_path / "model.safetensors").network
    for name, lr in (("refine.1.weight", 1e-3), ("encoder.features.0.0.weight", 2e-4)):
        moved = (after.get_parameter(name) - before[name]).detach().abs()
        assert moved.median().item() == pytest.approx(lr / 2, rel=1e-2), name


def test_saved_training_can_be_exported_for_a_robot(uninterrupted, tmp_path):
    from mde_ros.export import TOLERANCE, export

    path = tmp_path / "copy.safetensors"
    save(path, load(uninterrupted / "model.safetensors"))
    assert export(path, tmp_path / "copy.onnx") <= TOLERANCE
