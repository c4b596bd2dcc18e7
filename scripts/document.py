"""What the documents take from the code: tables of the README, and pages of the site.

`python scripts/document.py` writes the README's tables anew; `--check` writes nothing and fails
when one is out of date. As a hook of MkDocs it fills the site's pages while they are built: a line

    <!-- insert: NAME --> what is read where nothing builds the page

becomes what INSERTS makes of NAME, or the section of the README of that title.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import json
import logging
import posixpath
import re
import runpy
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mde_ros.cli import listed, make_parser, topic_flags
from mde_ros.config import CompletionSettings, NodeSettings

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MKDOCS = logging.getLogger("mkdocs.hooks")
# Documents that lie elsewhere → their pages.
PAGES = {
    **{f"mde_ros/weights/{p.name}": f"models/{p.name}" for p in ROOT.glob("mde_ros/weights/*.md")},
    "CHANGELOG.md": "changelog.md",
    "mde_ros/samples/README.md": "models/samples.md",
}


def table(header: list[str], rows: Iterator[list[Any]] | list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    escaped = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def parameters_table(settings: type, without: type | None = None) -> str:
    """One row per ROS parameter of a node, without those that are the same in another."""
    hints, fields = typing.get_type_hints(settings), dataclasses.fields(settings)
    known = [(f.name, f.default) for f in dataclasses.fields(without)] if without else []
    rows = ["| parameter | default | | may change while running |", "|---|---|---|---|"]
    fields = [f for f in fields if (f.name, f.default) not in known]
    for f in sorted(fields, key=lambda f: not f.metadata["live"]):
        default = str(f.default).lower() if hints[f.name] is bool else f.default
        about, choices = f.metadata["help"], f.metadata["choices"]
        if choices and not all(str(c) in about for c in choices):
            about += f" ({', '.join(choices)})"
        if f.metadata["low"] is not None:
            about += f" [{f.metadata['low']:g}, {f.metadata['high']:g}]"
        rows.append(f"| `{f.name}` | {default} | {about} | {'yes' if f.metadata['live'] else ''} |")
    return "\n".join(rows)


TABLES = {
    "parameters": lambda: parameters_table(NodeSettings),
    "completion parameters": lambda: parameters_table(CompletionSettings, NodeSettings),
}


# ---- the site ------------------------------------------------------------------------------------


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """Every command of `mde` with its parser."""
    actions = make_parser()._actions
    found = next(a for a in actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def commands() -> str:
    """A section per command, and one for the flags that all commands with recordings share."""
    shared = argparse.ArgumentParser(add_help=False)
    topic_flags(shared.add_argument)
    common = [action.option_strings for action in shared._actions]
    parts = []
    for name, parser in subcommands().items():
        own = [a for a in parser._actions[1:] if a.option_strings not in common]
        rows = [_row(parser, action) for action in own]
        if len(own) < len(parser._actions) - 1:
            rows.append(["[which topics, which part](#recordings)", "", "flags of every recording"])
        words = [_values(parser, a) for a in own if not a.option_strings]
        about = str(parser.description)
        parts += [f"## mde {name}", f"{about[0].upper()}{about[1:]}."]
        parts += [f"```sh\n{' '.join(['mde', name, *words])}\n```"]
        parts += [table(["", "default", ""], rows)] if rows else []
    rows = [_row(shared, action) for action in shared._actions]
    return "\n\n".join([*parts, "## Recordings", table(["", "default", ""], rows)])


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str]:
    label = " ".join(filter(None, (", ".join(action.option_strings), _values(parser, action))))
    default = "" if action.default in (None, False, []) else f"`{_shown(action.default)}`"
    about = re.sub(r" \(default: %\(default\)s\)", "", action.help or "")
    return [f"`{label}`", default, about]


def _values(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._format_args(action, action.dest.upper())


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)


def recipes() -> str:
    """A section per recipe of `mde train`: what it does and its settings."""
    choices = next(a.choices for a in subcommands()["train"]._actions if a.dest == "recipe")
    parts = []
    for name in choices:
        module = importlib.import_module(f"mde_ros.training.{name}")
        rows = [
            [f"`{key}`", f"`{default}`", about] for key, default, about in listed(module.SETTINGS)
        ]
        doc = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        parts += [f"## {name}", doc, table(["setting", "default", ""], rows)]
    return "\n\n".join(parts)


def networks() -> str:
    """Every network: parameters, cost, source."""
    from mde_ros.networks.describe import describe_all

    rows = [
        [f"`{r['name']}`", f"{r['parameters']:,}", f"{r['gmac']:.2f}", r["input"], r["source"]]
        for r in describe_all()
    ]
    return table(["network", "parameters", "GMAC", "input", "source"], rows)


def imports() -> str:
    """Who may import whom, as test/test_imports.py holds it."""
    allowed = runpy.run_path(str(ROOT / "test" / "test_imports.py"))["TABLE"]
    rows = [
        [f"`{unit}`", " ".join(f"`{u}`" for u in sorted(others)) or "nothing of ours"]
        for unit, others in allowed.items()
        if unit != "__init__"
    ]
    return table(["", "may import"], rows)


def house() -> str:
    """Every module and what it is, by the first line of its docstring."""
    lines = []
    for path in sorted((ROOT / "mde_ros").rglob("*.py")):
        parts = path.relative_to(ROOT / "mde_ros").parts
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        about = doc.split("\n\n")[0].replace("\n", " ")
        if parts[-1] != "__init__.py":
            lines.append(f"{'    ' * (len(parts) - 1)}- `{parts[-1]}` {about}")
        elif len(parts) > 1:
            lines.append(f"- **`{parts[0]}/`** {about}")
    # The modules of the top come first, as a reader looks for them.
    top = [line for line in lines if line.startswith("- `")]
    return "\n".join([*top, *(line for line in lines if line not in top)])


def model_file() -> str:
    """What the YAML beside a foreign ONNX file may say."""
    from mde_ros.runtime import ModelSpec

    rows = [[f"`{key}`", f"`{default}`", about] for key, default, about in listed(ModelSpec)]
    return table(["key", "default", ""], rows)


def reproduction() -> str:
    """The claims of every table that was reproduced, held or not."""
    rows = []
    for path in sorted(ROOT.glob("docs/reproduction/*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        link = f"[{path.stem}](reproduction/{path.stem}.md)"
        for claim in values["claims"]:
            rows.append(
                [link, "yes" if claim["holds"] else "**no**", claim["text"], claim["figure"]]
            )
    return table(["table", "holds", "claim", "ours"], rows) if rows else "None has been run yet."


INSERTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "recipes": recipes,
    "networks": networks,
    "imports": imports,
    "house": house,
    "model file": model_file,
    "reproduction": reproduction,
}


def section(title: str) -> str:
    """A section of the README without its heading, its subsections one level up.

    Raises:
        KeyError: when there is none of that title.
    """
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not found:
        raise KeyError(f"README.md has no section {title!r}")
    return re.sub(r"^#(#+ )", r"\1", found[1], flags=re.M).strip()


def relinked(markdown: str, source: str, page: str) -> str:
    """Links relative to a document of the repository, made relative to a page of the site.

    Files that are no page keep their text only.
    """

    def link(found: re.Match) -> str:
        image, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if "://" in target or not target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in PAGES:
            path = PAGES[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:
            return text
        return f"{image}[{text}]({posixpath.relpath(path, posixpath.dirname(page))}{anchor})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)]*)?\)", link, markdown)


def filled(markdown: str, page: str) -> str:
    """A page with its inserts."""

    def insert(found: re.Match) -> str:
        name = found[1]
        if name in INSERTS:
            return INSERTS[name]()
        return relinked(section(name), "README.md", page)

    return re.sub(r"^<!-- insert: (.+?) -->.*$", insert, markdown, flags=re.M)


def on_config(config: Any) -> Any:
    """MkDocs: cards and reproduced tables find their way into the navigation by themselves."""
    found = {
        "Models": sorted(page for page in PAGES.values() if page.startswith("models/")),
        "Tables": sorted(f"reproduction/{p.name}" for p in ROOT.glob("docs/reproduction/*.md")),
    }
    for section in config.nav:
        for title in found.keys() & section.keys():
            section[title] = [{Path(page).stem: page} for page in found[title]]
    config.nav = [section for section in config.nav if [] not in section.values()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: documents that lie elsewhere become pages."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        text = relinked((ROOT / source).read_text(encoding="utf-8"), source, page)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """MkDocs: a page's inserts are made while it is built."""
    return filled(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """MkDocs: a list that is none, as after a code block without an empty line, is an error."""
    for text in re.findall(r"^(?:<p>)?(- .*)", re.sub(r"(?s)<pre.*?</pre>", "", html), re.M):
        MKDOCS.warning("%s: not a list: %s", page.file.src_uri, text[:60])
    return html


# ---- the README ----------------------------------------------------------------------------------


def updated(text: str) -> str:
    """The README with every table between its markers made anew."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name}:[^>]*-->\n).*?(<!-- end {name} -->)"
        text, count = re.subn(
            pattern, lambda m, make=make: m[1] + make() + "\n" + m[2], text, flags=re.S
        )
        if count != 1:
            raise SystemExit(f"README.md: expected one pair of markers for {name}, found {count}")
    return text


def main() -> int:
    """Update the README, or with --check compare it."""
    old = README.read_text(encoding="utf-8")
    new = updated(old)
    if "--check" in sys.argv:
        if new != old:
            print("README.md is out of date: run python scripts/document.py", file=sys.stderr)
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
