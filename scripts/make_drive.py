"""Make mde_ros/samples/drive.mcap: a robot with camera and laser drives through a simulated office.

    python scripts/make_drive.py [OUTPUT.mcap]

The clip is that of `mde simulate --rooms 1 --streets 0 --frames 80 --rate 10 --seed 2726`, its
pictures kept as the JPEG files they are. The same versions of this package, MuJoCo, Mesa and OpenCV
give the same file, bit by bit; another renderer gives pictures that look the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mde_ros.simulation.bag import write_bag
from mde_ros.simulation.generate import generate

SEED, FRAMES, RATE_HZ = 2726, 80, 10.0


def main(output: Path) -> None:
    """Render the clip and write its bag."""
    with tempfile.TemporaryDirectory() as folder:
        (clip,) = generate(folder, 1, 0, FRAMES, seed=SEED, jobs=1, rate_hz=RATE_HZ)
        write_bag(clip, output, jpeg=True)
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    default = Path(__file__).parents[1] / "mde_ros" / "samples" / "drive.mcap"
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else default)
