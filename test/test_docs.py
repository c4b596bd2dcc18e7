"""What the README and the example files say is what the code does."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from mde_ros.config import CompletionSettings, NodeSettings, as_dict
from mde_ros.metrics import EDGE_NAMES, NAMES

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
document = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "document.py")))


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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_insert_of_a_page_is_known(page):
    for name in re.findall(r"^<!-- insert: (.+?) -->", page.read_text(), re.M):
        assert name in document.INSERTS or document.section(name)


def test_every_flag_that_help_tells_stands_on_the_page_of_the_commands():
    page = document.commands()
    sections = dict(re.findall(r"^## (?:mde )?(\w+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for name, parser in document.subcommands().items():
        flags = set(re.findall(r"^ +(--[a-z-]+)", parser.format_help(), re.M)) - {"--help"}
        told = sections[name] + (sections["Recordings"] if "#recordings" in sections[name] else "")
        assert flags == set(re.findall(r"`(--[a-z-]+)", told))


def test_the_page_of_the_metrics_has_those_that_are_measured():
    page = (ROOT / "docs/reference/metrics.md").read_text()
    table = page[: page.index("**Metric and median-scaled.**")]
    named = re.findall(r"`(\w+)`(?=.*\|.*\|.*\|)", table)
    assert set(named) == {*NAMES, *EDGE_NAMES, "coverage"}


def test_the_readme_has_the_topics_that_the_nodes_publish():
    source = ast.parse((ROOT / "mde_ros/nodes/outputs.py").read_text())
    assigned = [node for node in source.body if isinstance(node, ast.AnnAssign)]
    outputs = next(node.value for node in assigned if ast.unparse(node.target) == "OUTPUTS")
    assert isinstance(outputs, ast.Dict)
    told = re.findall(r"^\| out: `([^`]+)`", (ROOT / "README.md").read_text(), re.M)
    assert set(told) == {*map(ast.literal_eval, outputs.keys), "/diagnostics"}


def test_links_of_an_inserted_section_lead_to_the_same_documents():
    text = (
        "[a](docs/methods.md#x) [b](mde_ros/weights/student-fast.md) [c](setup.py) [d](https://e)"
    )
    assert document.relinked(text, "README.md", "reference/nodes.md") == (
        "[a](../methods.md#x) [b](../models/student-fast.md) c [d](https://e)"
    )


@pytest.mark.parametrize("link", ["good.md", "missing.md", "good.md#missing"])
def test_a_broken_link_fails_the_build(link, tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# A\n\n[link]({link})\n")
    (tmp_path / "docs/good.md").write_text("# B\n")
    ours = {"site_name": "test", "validation": settings["validation"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(ours))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # -q would hide warnings
    built = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert (built.returncode == 0) == (link == "good.md")
