"""Depth maps, error maps and point clouds as pictures (numpy and OpenCV only)."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from mde_ros.frame import Camera
from mde_ros.geometry import in_view, unproject
from mde_ros.metrics import is_measured

NOTHING = np.array([128, 128, 128], np.uint8)  # shown where there is no depth
ERROR_LIMIT = 0.5  # relative error shown at the ends of the scale
# Anchors of a diverging scale, too near → exact → too far, as RGB.
_DIVERGING = np.array(
    [[33, 80, 178], [95, 150, 222], [200, 220, 240], [247, 247, 247], [250, 214, 190],
     [232, 120, 80], [178, 30, 40]], np.float64
)  # fmt: skip


def turbo(values: np.ndarray) -> np.ndarray:
    """Values 0 (near, red) … 1 (far, blue) → RGB uint8 of the same shape plus (3,)."""
    level = (235 - values.clip(0, 1) * 215).astype(np.uint8)  # its ends are nearly black
    return cv2.cvtColor(
        cv2.applyColorMap(level.reshape(-1, 1), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    ).reshape(*values.shape, 3)


def diverging(values: np.ndarray) -> np.ndarray:
    """Values −1 (blue) … 0 (white) … 1 (red) → RGB uint8 of the same shape plus (3,)."""
    at = (values.clip(-1, 1) + 1) / 2 * (len(_DIVERGING) - 1)
    channels = [np.interp(at, np.arange(len(_DIVERGING)), c) for c in _DIVERGING.T]
    return np.stack(channels, -1).astype(np.uint8)


def gradient(colours: np.ndarray) -> str:
    """A CSS gradient of RGB colours (N, 3), for the legend of a picture."""
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in colours.tolist())
    return f"linear-gradient(to right, {stops})"


def depth_picture(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """Depth (H, W) → RGB (H, W, 3) uint8, red at near_m to blue at far_m, grey without depth."""
    has = is_measured(depth_m)
    values = (np.where(has, depth_m, near_m) - near_m) / max(far_m - near_m, 1e-6)
    return np.where(has[..., None], turbo(values), NOTHING)


def scan_picture(
    image: np.ndarray, points: np.ndarray, camera: Camera, near_m: float, far_m: float
) -> np.ndarray:
    """An image (H, W, 3) uint8 with points (N, 3) of its camera's frame as dots.

    Their colours are those of depth_picture, with a dark rim.
    """
    seen, rows, columns = in_view(points, camera)
    out, radius = image.copy(), max(1, round(camera.width / 200))
    if not seen.size:
        return out
    colours = depth_picture(points[seen, 2], near_m, far_m).tolist()
    pixels = list(zip(columns.tolist(), rows.tolist()))
    for pixel in pixels:
        cv2.circle(out, pixel, radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
    for pixel, colour in zip(pixels, colours):
        cv2.circle(out, pixel, radius, colour, -1, cv2.LINE_AA)
    return out


def error_picture(prediction_m: np.ndarray, truth_m: np.ndarray) -> np.ndarray:
    """(prediction − truth) / truth → RGB: blue too near, white exact, red too far, grey unknown."""
    has = is_measured(prediction_m) & is_measured(truth_m)
    relative = np.where(has, prediction_m - truth_m, 0) / np.where(has, truth_m, 1)
    return np.where(has[..., None], diverging(relative / ERROR_LIMIT), NOTHING)


def cloud_pictures(
    depth_m: np.ndarray,
    image: np.ndarray,
    camera: Camera,
    reach_m: tuple[float, float],
    size: tuple[int, int] = (480, 360),
) -> tuple[np.ndarray, np.ndarray]:
    """The point cloud of a depth map, in the image's colours, from two sides.

    Args:
        depth_m: (H, W) metres; image: (H, W, 3) uint8 of the same size.
        reach_m: (median, far) distance; the same for all clouds of a frame, so that they compare.
        size: width and height of the pictures.

    Returns:
        Two (h, w, 4) RGBA pictures: from above left in perspective, and straight from above with a
        grid of metres, the camera at the bottom looking up.
    """
    has = is_measured(depth_m) & (depth_m < 1.3 * reach_m[1])
    points = unproject(np.where(has, depth_m, 0), camera)[has].astype(np.float64)
    colours = image[has]
    return _orbit(points, colours, camera, reach_m, size), _above(
        points, colours, camera, reach_m[1], size
    )


def _orbit(
    points: np.ndarray,
    colours: np.ndarray,
    camera: Camera,
    reach_m: tuple[float, float],
    size: tuple[int, int],
    yaw_deg: float = 35.0,
    pitch_deg: float = 22.0,
) -> np.ndarray:
    """Seen by a camera that swung to the left and up around the scene's middle."""
    yaw, pitch = np.radians([yaw_deg, pitch_deg])
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    )
    middle = np.array([0, 0, reach_m[0]])
    seen = (points - middle) @ turn.T @ tilt.T + [0, 0, 1.35 * reach_m[0]]
    focal = 0.8 * size[0] * min(camera.K[0, 0] / camera.width, 1.1)
    z = np.maximum(seen[:, 2], 1e-3)
    pixels = seen[:, :2] / z[:, None] * focal + [size[0] / 2, size[1] / 2]
    good = seen[:, 2] > 0.05 * reach_m[0]
    return _splat(pixels[good], z[good], colours[good], size)


def _above(
    points: np.ndarray,
    colours: np.ndarray,
    camera: Camera,
    far_m: float,
    size: tuple[int, int],
) -> np.ndarray:
    """Map view: x to the right, distance upwards, one grid line per metre (or 5, or 10)."""
    scale = 0.86 * size[1] / far_m
    origin = np.array([size[0] / 2, 0.95 * size[1]])
    pixels = points[:, [0, 2]] * [scale, -scale] + origin
    # Floor and ceiling would hide the walls: what is nearest to the camera's height lies on top.
    canvas = _splat(pixels, np.abs(points[:, 1]), colours, size, spread=1)
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100) if far_m / s <= 9)
    lines = np.zeros((size[1], size[0]), np.uint8)
    for k in range(-40, 41):
        x, y = origin[0] + k * step * scale, origin[1] - k * step * scale
        cv2.line(lines, (round(x), 0), (round(x), size[1]), 70, 1)
        if k >= 0:
            cv2.line(lines, (0, round(y)), (size[0], round(y)), 70, 1)
    edge = far_m * 1.1
    for u in (0, camera.width - 1):  # the camera's field of view
        x = (u - camera.K[0, 2]) / camera.K[0, 0] * edge
        end = (round(origin[0] + x * scale), round(origin[1] - edge * scale))
        cv2.line(lines, (round(origin[0]), round(origin[1])), end, 130, 1, cv2.LINE_AA)
    cv2.circle(lines, (round(origin[0]), round(origin[1])), 4, 255, -1, cv2.LINE_AA)
    label = f"{step:g} m"
    at = (round(origin[0]) + 8, round(origin[1] - step * scale) - 4)
    cv2.putText(lines, label, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 235, 1, cv2.LINE_AA)
    under = np.dstack([np.full((*lines.shape, 3), 128, np.uint8), lines])
    return np.where(canvas[..., 3:] > 0, canvas, under)


def _splat(
    pixels: np.ndarray,
    depth: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int],
    spread: int = 2,
) -> np.ndarray:
    """Points as little squares, the nearest on top: RGBA (h, w, 4), transparent elsewhere."""
    canvas = np.zeros((size[1] + spread, size[0] + spread, 4), np.uint8)
    inside = ((pixels >= 0) & (pixels < size)).all(1)
    order = np.argsort(-depth[inside])
    at = pixels[inside][order].astype(np.int64)
    rgba = np.column_stack([colours[inside][order], np.full(len(at), 255, np.uint8)])
    for dy in range(spread):
        for dx in range(spread):
            canvas[at[:, 1] + dy, at[:, 0] + dx] = rgba
    return canvas[: size[1], : size[0]]


def data_uri(picture: np.ndarray, width: int | None = None) -> str:
    """RGB as JPEG, RGBA as PNG, inside a data: URI; scaled down to `width` where it is wider."""
    if width and picture.shape[1] > width:
        height = round(picture.shape[0] * width / picture.shape[1])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    if picture.shape[2] == 4:
        kind, code, options = "png", cv2.COLOR_RGBA2BGRA, [cv2.IMWRITE_PNG_COMPRESSION, 9]
    else:
        kind, code, options = "jpeg", cv2.COLOR_RGB2BGR, [cv2.IMWRITE_JPEG_QUALITY, 88]
    done, data = cv2.imencode(f".{kind}", cv2.cvtColor(picture, code), options)
    if not done:
        raise ValueError(f"picture: cannot encode {picture.shape} as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
