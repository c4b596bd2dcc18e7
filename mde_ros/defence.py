"""How far two depth maps of one image are apart: what the monitor of the defence looks at."""

from __future__ import annotations

import numpy as np


def disagreement(depth: np.ndarray, undefended: np.ndarray) -> float:
    """Median over the valid pixels of |ln(depth / undefended)|; NaN where there are none.

    0.1 is a difference of about 10 %. Neither the scale of the scene nor which of the two is the
    larger makes a difference. Ours: an attack on the network moves what it says of all pixels, and
    less what it says of those that the mask shows (METHODS 3).

    Args:
        depth, undefended: (h, w) metres, of the masked image and of the image itself; what is not
            finite or not positive is no measurement.
    """
    valid = (depth > 0) & (undefended > 0) & np.isfinite(depth) & np.isfinite(undefended)
    if not valid.any():
        return float("nan")
    return float(np.median(np.abs(np.log(depth[valid] / undefended[valid]))))
