"""Put a trained checkpoint among the shipped models: `python scripts/ship.py CHECKPOINT NAME`.

Writes mde_ros/weights/NAME.safetensors (fp16) and NAME.onnx, which points into it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mde_ros import checkpoint
from mde_ros.export import export

WEIGHTS = Path(__file__).parent.parent / "mde_ros" / "weights"


def main(source: str, name: str) -> None:
    """Store, export, and say how far the export is from torch."""
    loaded = checkpoint.load(Path(source))
    target = WEIGHTS / f"{name}.safetensors"
    checkpoint.save(target, replace(loaded, spec=loaded.spec | {"name": name}), half=True)
    difference = export(target, target.with_suffix(".onnx"), linked=True)
    print(f"{target}: ONNX differs from torch by at most {difference:.1e}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
