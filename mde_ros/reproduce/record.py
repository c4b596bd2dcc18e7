"""What a reproduction leaves behind: NAME.json for programs and NAME.md for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mde_ros.config import ConfigError, check, setting
from mde_ros.evaluation.results import write_atomically, write_json

console = Console(stderr=True)
Row = dict[str, Any]  # "name" and figures


@dataclass(frozen=True)
class ReproduceSettings:
    """How large, from what, and where to."""

    scale: str = setting(
        "small", "small: minutes, on simulated scenes; full: real data", choices=("small", "full")
    )
    data: tuple[str, ...] = setting((), "NAME=PATH of data sets that an experiment takes")
    seeds: tuple[int, ...] = setting((0, 1, 2), "a training for each")
    work: str = setting("runs/reproduce", "trainings and simulated clips; a second run goes on")
    out: str = setting("docs/reproduction", "where NAME.json and NAME.md are written")

    def __post_init__(self) -> None:
        check(self)
        if not self.seeds:
            raise ConfigError("seeds: expected at least one, got none")

    def path(self, name: str) -> str:
        """The path of a data set.

        Raises:
            ConfigError: when it was not given.
        """
        path = self.given(name)
        if path is None:
            raise ConfigError(
                f"data: expected {name}=PATH for this experiment, got {list(self.data)}"
            )
        return path

    def given(self, name: str) -> str | None:
        """The path of a data set that an experiment can do without; None: it has to."""
        for pair in self.data:
            key, equals, path = pair.partition("=")
            if key == name and equals:
                return path
        return None


@dataclass
class Record:
    """A reproduction under way; `save` writes it.

    Attributes:
        name, title, source: what is reproduced, and where it was published.
        paper, ours: rows of the tables, each with a "name" and figures.
        claims: what the publication says and whether it holds in ours.
        notes: what a reader must know to compare the two.
    """

    name: str
    title: str
    source: str
    settings: ReproduceSettings
    details: dict[str, Any] = field(default_factory=dict)
    paper: list[Row] = field(default_factory=list)
    ours: list[Row] = field(default_factory=list)
    claims: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def claim(self, text: str, holds: bool, figure: str) -> None:
        """Add a claim; one that does not hold stays in, as false."""
        self.claims.append({"text": text, "holds": bool(holds), "figure": figure})
        console.print(
            f"{'holds' if holds else 'DOES NOT HOLD'}: {text} ({figure})", highlight=False
        )

    def save(self) -> Path:
        """Write NAME.json and NAME.md; returns the path of the latter.

        Raises:
            ResultsError: when they cannot be written.
        """
        seconds, out = round(time.monotonic() - self.began), Path(self.settings.out)
        values = {
            "source": self.source,
            "paper": self.paper,
            "ours": self.ours,
            "claims": self.claims,
            "scale": self.settings.scale,
            "seeds": list(self.settings.seeds),
            "seconds": seconds,
            "settings": self.details,
        }
        write_json(out / f"{self.name}.json", values)
        page = out / f"{self.name}.md"
        write_atomically(page, self.markdown(seconds).encode())
        return page

    def markdown(self, seconds: int) -> str:
        """The page: command, tables, claims, notes."""
        s = self.settings
        command = f"mde reproduce {self.name}"
        if s.scale != "small":
            command += f" --scale {s.scale}"
        if s.data:
            command += " --data " + " ".join(f"{d.partition('=')[0]}=PATH" for d in s.data)
        command += f" --seeds {' '.join(map(str, s.seeds))}"
        held = sum(c["holds"] for c in self.claims)
        parts = [
            f"# {self.title}",
            f"{self.source}. Written by `{command}`, {seconds / 60:.0f} min.",
            f"{held} of {len(self.claims)} claims hold.",
            "\n".join(
                f"- **{'holds' if c['holds'] else 'does not hold'}**: {c['text']} ({c['figure']})"
                for c in self.claims
            ),
            "## As published",
            table(self.paper),
            f"## Ours, {s.scale} scale",
            table(self.ours),
            "\n".join(self.notes),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[Row]) -> str:
    """A Markdown table; numbers with three decimals, what a row lacks is left empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row.get(c, "")) for c in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
