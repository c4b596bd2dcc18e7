"""Two processes with half a batch each learn what one learns from the whole batch."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mde_ros.checkpoint import read_tensors
from mde_ros.networks import make_network
from mde_ros.training import completion, distill, loop

SCRIPT = '''
"""Some recipes for two steps, in as many processes as torchrun started.

Norms are frozen, for each process has statistics of its own.
"""
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mde_ros.datasets.transforms import crop_resize
from mde_ros.networks import make_network
from mde_ros.training import completion, distill, distill_free
from mde_ros.training.batches import Source
from mde_ros.training.loop import LoopSettings

data, teachers, out = map(Path, sys.argv[1:])
# Every pixel counts, so that the mean over a batch is that of its shares.
for recipe in (distill, completion):
    recipe.SIZES = ((64, 48),)
    recipe.crop_resize = lambda view, rng, width, height, smallest, degrees: crop_resize(
        view, rng, width, height, smallest
    )


def loop(network):
    norms = (n for n, m in make_network(network).named_modules() if isinstance(m, nn.BatchNorm2d))
    return LoopSettings(
        steps=2, batch=4, warmup=0, ema=0.0, device="cpu", precision="32-true", threads=1,
        workers=0, frozen=tuple(norms),
    )


fast, light = "fast_mobilenet_v2", "completion_mobilenet_v2"
source = Source(str(data), scan="height=0.3")
common = {"sources": (source,), "network": fast, "loop": loop(fast)}
distill.train(
    distill.SETTINGS(**common, teacher=str(teachers / f"{fast}.onnx"), pixels=64 * 48),
    out / "distill",
)
distill_free.train(
    distill_free.SETTINGS(**common, teacher=str(teachers / f"{fast}.safetensors"), size=(64, 48)),
    out / "distill_free",
)
completion.train(
    completion.SETTINGS(
        sources=(source,), initial="", teacher=str(teachers / f"{fast}.onnx"), focal_px=60.0,
        point_weight=0.0, line_weight=0.0, loop=loop(light),
    ),
    out / "completion",
)
print("world", torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1)
'''
RECIPES = ("distill", "distill_free", "completion")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, students):
    """Folders of the recipes' trainings by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    data, script = folder / "rooms", folder / "train.py"
    script.write_text(SCRIPT)
    write_rooms(data)
    teachers = students["fast_mobilenet_v2"][0].parent
    command = [str(script), str(data), str(teachers)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [sys.executable, *torchrun, *command, str(folder / "two")],
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "PYTHONPATH": str(Path(loop.__file__).parents[2])},
    )
    assert process.returncode == 0 and "world 2" in process.stdout, process.stderr[-2000:]
    with pytest.MonkeyPatch.context() as patch:
        for recipe in (distill, completion):  # the script changes them
            patch.setattr(recipe, "SIZES", recipe.SIZES)
            patch.setattr(recipe, "crop_resize", recipe.crop_resize)
        patch.setattr(sys, "argv", [*command, str(folder / "one")])
        runpy.run_path(str(script))
    return folder / "one", folder / "two"


def write_rooms(folder):
    """Six noisy pictures of slopes, with an object each."""
    for part in ("rgb", "depth", "instance"):
        (folder / part).mkdir(parents=True)
    intrinsics = '{"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "width": 64, "height": 48}'
    (folder / "intrinsics.json").write_text(intrinsics)
    rng = np.random.default_rng(2)
    for i in range(6):
        depth = np.tile(np.linspace(6, 1 + i / 3, 48)[:, None], (1, 64))
        instance = np.zeros((48, 64), np.uint16)
        instance[8 : 20 + i, 10:30] = 2
        cv2.imwrite(str(folder / f"rgb/{i}.png"), rng.integers(0, 256, (48, 64, 3), np.uint8))
        cv2.imwrite(str(folder / f"depth/{i}.png"), (1000 * depth).astype(np.uint16))
        cv2.imwrite(str(folder / f"instance/{i}.png"), instance)


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_with_half_a_batch_each_end_with_the_weights_of_one(trained, recipe):
    """Network, its average, and the companion of distill_free: all of the state."""
    one, two = (read_tensors(out / recipe / loop.STATE)[0] for out in trained)
    assert one.keys() == two.keys()
    kept = [k for k in one if not k.startswith(("optimizer", "companion_optimizer"))]
    assert (recipe == "distill_free") == any(k.startswith("companion.") for k in kept)
    apart = torch.cat([(one[k] - two[k]).float().abs().flatten() for k in kept])
    # Where a gradient is all but 0, Adam makes a step of its sign.
    assert (apart > 2e-5).sum() <= 10 and apart.max() < 1e-2
    assert sorted(p.name for p in (trained[1] / recipe).iterdir()) == [
        "model.safetensors",
        loop.STATE,
    ]


def test_two_steps_move_the_weights_further_than_what_is_tolerated(trained):
    torch.manual_seed(0)
    start = make_network("fast_mobilenet_v2").refine[1].weight.detach()
    for recipe in ("distill", "distill_free"):
        end = read_tensors(trained[0] / recipe / loop.STATE)[0]["network.refine.1.weight"]
        assert (end - start).abs().median() > 1e-3
    companion = read_tensors(trained[0] / "distill_free" / loop.STATE)[0]["companion.conv3.weight"]
    assert companion.abs().median() > 1e-4  # it began at zero
