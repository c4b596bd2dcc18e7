"""What the README and the example files say is what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from mde_ros.config import NodeSettings, as_dict

ROOT = Path(__file__).parent.parent


def test_the_readmes_tables_are_those_of_the_code():
    command = [sys.executable, "scripts/document.py", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_example_parameter_file_states_the_defaults():
    given = yaml.safe_load((ROOT / "config" / "depth.yaml").read_text())["/**"]["ros__parameters"]
    defaults = as_dict(NodeSettings())
    assert given == {name: defaults[name] for name in given}


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
