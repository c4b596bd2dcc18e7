"""Every recipe in config/train can be run by the command that it names."""

import importlib
import re
from pathlib import Path

import pytest

from mde_ros.config import load
from mde_ros.networks import NETWORKS

PRESETS = sorted(Path(__file__).parents[2].glob("config/train/*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_is_taken_by_the_recipe_of_the_command_in_its_head(path):
    commands = re.findall(r"mde train (\w+) --config config/train/(\S+)", path.read_text())
    (recipe,) = {recipe for recipe, named in commands if named == path.name}
    settings = load(importlib.import_module(f"mde_ros.training.{recipe}").SETTINGS, path)
    assert settings.network in NETWORKS
    assert {named for _, named in commands} <= {p.name for p in PRESETS}


def test_paper_preset_is_the_published_schedule():
    from mde_ros.training.supervised import SETTINGS, paper_schedule

    loop = load(SETTINGS, next(p for p in PRESETS if p.stem == "revisiting-nyu")).loop
    assert {**vars(loop), "validate_every": 1000} == vars(paper_schedule())
