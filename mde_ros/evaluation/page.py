"""HTML pages that stand alone: templates, and charts for light and dark pages."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mde_ros.evaluation.results import ResultsError, speed_words, write_atomically

INK = {"light": "#1d2530", "dark": "#dfe5ee"}
FAINT = {"light": "#d9dee6", "dark": "#353d4a"}
PALETTE = ("#2f78e0", "#ef7d1a", "#1fa37a", "#b45bd0", "#d6455d", "#7f8ea3")


def need_libraries() -> None:
    """Refuse early what write_page would refuse after hours.

    Raises:
        ResultsError: when a library that draws is missing.
    """
    for name in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise ResultsError(f"report: {name} is not installed (pip install matplotlib jinja2)")


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Write a page from a template of this folder; it needs no other file and no network.

    Raises:
        ResultsError: when it cannot be written, or a library that draws is missing.
    """
    need_libraries()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mde_ros", "evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, words=speed_words)
    write_atomically(path, environment.get_template(template).render(**values).encode())


def _number(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def themes(draw: Callable[[Any], None]) -> dict[str, str]:
    """The same chart drawn for a light and for a dark page, as SVG data URIs."""
    import matplotlib
    from matplotlib.figure import Figure

    out = {}
    for theme in ("light", "dark"):
        ink = INK[theme]
        style: Any = {
            "svg.hashsalt": "mde_ros",
            "font.size": 9.5,
            "text.color": ink,
            "axes.edgecolor": FAINT[theme],
            "axes.labelcolor": ink,
            "xtick.color": ink,
            "ytick.color": ink,
            "grid.color": FAINT[theme],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "hatch.color": FAINT[theme],
        }
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(5.6, 3.2), layout="constrained")
            draw(figure.add_subplot())
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        data = base64.b64encode(buffer.getvalue()).decode()
        out[theme] = f"data:image/svg+xml;base64,{data}"
    return out


def legend(axes: Any) -> None:
    """A legend where there is more than one thing to tell apart."""
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="best", fontsize=8.5)
