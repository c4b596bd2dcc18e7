"""Objects, and whether each moves by itself (METHODS 8, stage 1.5 and the decision of stage 2).

An object is dynamic when at least half of its pixels are at least one pixel away from where they
would be if nothing moved, or when it touches the band in the middle of the image, where a camera
that goes ahead sees no motion. Ours: or when half of it lies below the ground, where nothing is;
what keeps the camera's speed leaves no motion over, but is taken to be that far away.
"""

from __future__ import annotations

import cv2
import numpy as np

LEAST_AREA = 0.005  # of the image
MOVED_PX, MOVED_SHARE = 1.0, 0.5
BAND = 1 / 20  # of the width
GROUND_TOLERANCE = 0.04  # between a pixel of the ground and its plane, in heights of the camera
BELOW = -0.15  # lower than this is below the ground
Array = np.ndarray


def decide(masks: Array, residual_px: Array, height: Array) -> Array:
    """Which objects are dynamic, (K,) bool.

    Args:
        masks: (K, h, w) bool.        residual_px: (h, w), mean of both neighbours.
        height: (h, w), see `heights`.
    """
    width = residual_px.shape[1]
    columns = np.abs(np.arange(width) - (width - 1) / 2) <= BAND * width / 2
    inside = masks.sum((1, 2)).clip(1)
    moved = (masks & (residual_px >= MOVED_PX)).sum((1, 2)) / inside >= MOVED_SHARE
    below = (masks & (height < BELOW)).sum((1, 2)) / inside >= MOVED_SHARE
    return moved | below | masks[:, :, columns].any((1, 2))


def residual_size(residual: Array, flow: Array, least_share: float) -> Array:
    """(|f₋₁|₁ + |f₊₁|₁)/2 of both neighbours' residual flows: (h, w) pixels.

    Args:
        residual, flow: (2, 2, h, w), what the camera's motion leaves over, and the whole.
        least_share: of the whole that is less than this is none, for it may be depth's error.
    """
    size, whole = (np.abs(f).sum(1).mean(0) for f in (residual, flow))
    return np.where(size >= least_share * whole, size, 0)


def instance_masks(instance: Array, wanted: Array | None = None) -> Array:
    """One mask (K, h, w) for each number of a map (h, w) that covers enough of it; 0 is none.

    Args:
        wanted: the numbers that count; None: all.
    """
    numbers, areas = np.unique(instance[instance > 0], return_counts=True)
    large = numbers[areas >= LEAST_AREA * instance.size]
    if wanted is not None:
        large = large[np.isin(large, wanted)]
    return instance == large[:, None, None]


def optical_flow(before: Array, after: Array) -> Array:
    """Flow (2, h, w) in pixels from one image (h, w, 3) uint8 to another: DIS (Kroeger 2016)."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    one, other = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after))
    return search.calc(one, other, np.zeros((*one.shape, 2), np.float32)).transpose(2, 0, 1)


def carried(mask: Array, flow: Array) -> Array:
    """A mask (h, w) where the flow (2, h, w) takes it; small holes are closed."""
    height, width = mask.shape
    v, u = np.nonzero(mask)
    u2, v2 = (np.rint(a + flow[i, v, u]).astype(int) for i, a in enumerate((u, v)))
    inside = (u2 >= 0) & (u2 < width) & (v2 >= 0) & (v2 < height)
    out = np.zeros(mask.shape, np.uint8)
    out[v2[inside], u2[inside]] = 1
    return cv2.morphologyEx(out, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0


def ground_plane(depth: Array, K: Array, tries: int = 200) -> Array:
    """The plane n·X = 1 (3,) that most of the image's lower half lies on, by RANSAC.

    Its normal is within 30 degrees of the camera's y axis; (0, 1/h, 0), h the lowest 5 % of points,
    where there is no such plane.
    """
    points = _points(depth, K)
    low = points[depth.shape[0] // 2 :].reshape(-1, 3)
    rng, best, most = np.random.default_rng(0), None, 0
    for three in low[rng.integers(len(low), size=(tries, 3))]:
        if abs(np.linalg.det(three)) < 1e-9:
            continue
        plane = np.linalg.solve(three, np.ones(3))
        if plane[1] < 0.87 * np.linalg.norm(plane):
            continue
        count = np.count_nonzero(np.abs(low @ plane - 1) < GROUND_TOLERANCE)
        if count > most:
            best, most = plane, count
    if best is None:
        return np.array([0, 1 / max(float(np.percentile(low[:, 1], 95)), 1e-3), 0])
    near = low[np.abs(low @ best - 1) < GROUND_TOLERANCE]
    return np.linalg.lstsq(near, np.ones(len(near)), rcond=None)[0]


def heights(depth: Array, K: Array) -> Array:
    """How high above the ground's plane each pixel lies (h, w), in heights of the camera."""
    return 1 - _points(depth, K) @ ground_plane(depth, K)


def found_masks(depth: Array, height: Array, residual_px: Array) -> Array:
    """Objects (K, h, w) that nobody has marked, from depth, ground and what moves.

    Ours, where CVPR 2024 learns slots: a thing that moves by itself either leaves a residual flow,
    or its depth is wrong in a way no thing can be: below the ground, for what keeps the camera's
    speed is taken to be far away. What stands on the ground, parted where depth jumps, is an
    object too: a static one, for the depth scale alignment to learn from.
    """
    odd = _closed((residual_px >= MOVED_PX) & (height < 1.3) | (height < BELOW))
    jump = np.maximum(
        np.abs(np.diff(np.log(depth), axis=0, prepend=np.log(depth[:1]))),
        np.abs(np.diff(np.log(depth), axis=1, prepend=np.log(depth[:, :1]))),
    )
    stands = (height > 0.1) & (height < 1.3) & (jump < 0.06) & ~odd
    return np.concatenate([_components(odd), _components(stands)])


def _closed(mask: Array) -> Array:
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0


def _components(mask: Array, most: float = 0.15) -> Array:
    """Connected parts that are neither too small nor most of the image."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    parts = instance_masks(labels)
    return parts[parts.sum((1, 2)) <= most * mask.size]


def _points(depth: Array, K: Array) -> Array:
    """(h, w, 3) in the optical frame."""
    v, u = np.indices(depth.shape)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(depth)], -1)
    return rays * depth[..., None]
