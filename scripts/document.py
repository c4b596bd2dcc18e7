"""Write the tables of the README that come from the code: `python scripts/document.py`.

`--check` writes nothing and fails when a table is out of date.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from pathlib import Path

from mde_ros.config import CompletionSettings, NodeSettings

README = Path(__file__).parent.parent / "README.md"


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
