"""What the README and the example files say is what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mde_ros.config import CompletionSettings, NodeSettings, as_dict

ROOT = Path(__file__).parent.parent


def test_the_readmes_tables_are_those_of_the_code():
    command = [sys.executable, "scripts/document.py", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "settings"), [("depth", NodeSettings()), ("completion", CompletionSettings())]
)
def test_the_example_parameter_files_state_the_defaults(name, settings):
    given = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())["/**"]["ros__parameters"]
    defaults = as_dict(settings)
    assert given == {name: defaults[name] for name in given}


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
