"""What turns a rendered picture into something like a photograph: shine, sky, lens and sensor."""

from dataclasses import dataclass

import cv2
import numpy as np

from mde_ros.simulation.render import SceneRenderer
from mde_ros.simulation.textures import SIZE, VARIANTS, texture

Rng = np.random.Generator


@dataclass(frozen=True)
class Look:
    """What a camera makes of the light: fixed for one clip."""

    exposure: float  # mean brightness of the picture aimed at, 0..1
    white_balance: np.ndarray  # (3,)
    vignette: float
    noise: float
    blur_px: float
    haze_per_m: float
    contrast: float  # exponent of the tone curve
    depth_of_tone: float  # how much an S-curve darkens the dark and lightens the light
    saturation: float
    bloom: float
    motion_px: float  # smear of a shaking hand


def random_look(rng: Rng, outdoors: bool) -> Look:
    return Look(
        exposure=rng.uniform(0.36, 0.64),
        white_balance=1 + rng.uniform(-1, 1) * np.array([0.13, 0, -0.13]) + rng.normal(0, 0.02, 3),
        vignette=max(0.0, rng.normal(0.1, 0.1)),
        noise=rng.uniform(0.002, 0.02),
        blur_px=float(rng.choice([0.0, rng.uniform(0.4, 1.0)])),
        haze_per_m=rng.choice([0.001, 0.003, 0.009]) * rng.random() if outdoors else 0.0,
        contrast=rng.uniform(0.85, 1.2),
        depth_of_tone=rng.uniform(0, 0.7),
        saturation=rng.uniform(0.6, 1.25),
        bloom=rng.uniform(0, 0.25),
        motion_px=float(rng.choice([0, 0, rng.uniform(0, 3)])),
    )


def develop(rgb: np.ndarray, depth_m: np.ndarray, look: Look, rng: Rng) -> np.ndarray:
    """What a camera would make of a rendered picture, (H, W, 3) uint8 in and out.

    Darkens corners and contacts (from depth), then haze, exposure, bloom, white balance,
    vignette, lens blur, shot noise and a soft shoulder.
    """
    light: np.ndarray = (rgb.astype(np.float32) / 255) ** 2
    far = np.where(depth_m > 0, depth_m, 80.0).astype(np.float32)
    light *= np.where(depth_m > 0, contact_shadow(far), 1.0)[..., None]
    if look.haze_per_m:
        clear = np.exp(-far * look.haze_per_m)[..., None]
        light = light * clear + 0.8 * (1 - clear)
    tone = np.sqrt(light)
    brightness = float(0.5 * tone.mean() + 0.5 * tone[depth_m > 0].mean())  # the sky counts less
    light *= np.clip(look.exposure / max(brightness, 0.03), 0.5, 2.5) ** 2
    if look.bloom:
        glare = cv2.GaussianBlur(np.maximum(light - 0.8, 0), (0, 0), rgb.shape[1] / 40)
        light += look.bloom * glare
    light *= look.white_balance
    height, width = depth_m.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - look.vignette * (x * x + y * y) / 2)[..., None]
    if look.blur_px:
        light = cv2.GaussianBlur(light, (0, 0), look.blur_px)
    if look.motion_px:
        light = cv2.filter2D(light, -1, smear(rng, look.motion_px))
    light = np.maximum(light, 0)
    light += look.noise * rng.standard_normal(light.shape, np.float32) * (0.15 + np.sqrt(light))
    tone = np.sqrt(np.maximum(light, 0)) ** look.contrast
    tone += look.depth_of_tone * (tone - 0.45) * np.clip(1 - (2 * tone - 1) ** 2, 0, 1)
    grey = tone.mean(axis=2, keepdims=True)
    tone = grey + look.saturation * (tone - grey)
    tone = np.where(tone < 0.8, tone, 0.8 + 0.2 * np.tanh((tone - 0.8) / 0.2))
    return (np.clip(tone, 0, 1) * 255).astype(np.uint8)


def smear(rng: Rng, most_px: float) -> np.ndarray:
    """The kernel of a short straight motion in some direction."""
    reach = rng.uniform(0, most_px) / 2
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((7, 7), np.float32)
    for along in np.linspace(-reach, reach, 15):
        x, y = 3 + along * np.cos(angle), 3 + along * np.sin(angle)
        kernel[round(y), round(x)] += 1
    return kernel / kernel.sum()


def polish_floor(rgb, mirrored, instance, renderer: SceneRenderer, T_world_camera) -> np.ndarray:
    """The floor with a blurred reflection that grows towards grazing angles (Schlick)."""
    names = [each.name for each in renderer.scene.objects]
    floors = [index + 1 for index, name in enumerate(names) if name == "floor"]
    fall = pixel_directions(renderer, T_world_camera)[..., 2]
    gloss = renderer.scene.floor_reflection
    share = gloss * (0.15 + 0.85 * (1 - np.abs(fall)) ** 3) * np.isin(instance, floors)
    share = cv2.GaussianBlur(share.astype(np.float32), (3, 3), 0)[..., None]
    blurred = cv2.GaussianBlur(np.ascontiguousarray(mirrored), (5, 5), 4 * (1 - gloss))
    return (rgb * (1 - share) + blurred * share).astype(np.uint8)


def paint_clouds(rgb, instance, renderer: SceneRenderer, T_world_camera) -> np.ndarray:
    """White and grey clouds on the pixels that see the sky, fixed in the world."""
    directions = pixel_directions(renderer, T_world_camera)
    reach = 1 / (np.maximum(directions[..., 2], 0) + 0.12)
    plane = (directions[..., :2] * reach[..., None] * 60 + 1000).astype(np.float32) % SIZE
    layer = texture("clouds", int(renderer.scene.far_m + 97 * renderer.scene.clouds) % VARIANTS)
    cover = cv2.remap(
        layer, plane[..., 0], plane[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )[..., :1]
    cover = np.clip(cover / 255.0 - 1 + renderer.scene.clouds, 0, 1) * (instance == 0)[..., None]
    return (rgb + (np.array([250, 250, 252.0]) - rgb) * cover).astype(np.uint8)


def pixel_directions(renderer: SceneRenderer, T_world_camera: np.ndarray) -> np.ndarray:
    """Unit viewing directions (H, W, 3) in the world."""
    width, height = renderer.size
    u, v = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    rays = np.stack([u, v, np.full_like(u, renderer.focal_px)], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True) @ T_world_camera[:3, :3].T


def contact_shadow(depth_m: np.ndarray) -> np.ndarray:
    """A factor (H, W) below 1 where nearby surfaces stand before a pixel.

    Inverse depth is linear in the image on a plane, so that its mean over a square equals its
    middle there; it exceeds the middle in corners and at the foot of things. Squares that hold
    something much nearer are left out: what stands far in front of a wall does not darken it.
    """
    inverse = 1 / depth_m
    factor = np.ones_like(inverse)
    for radius, strength in ((0.012, 1.2), (0.04, 1.8), (0.1, 1.5)):
        side = 2 * int(radius * depth_m.shape[1]) + 1
        mean = cv2.blur(inverse, (side, side), borderType=cv2.BORDER_REFLECT)
        nearest = cv2.dilate(inverse, np.ones((side, side), np.uint8))
        close = np.clip((2.0 - nearest / inverse) / 0.7, 0, 1)
        excess = np.clip((mean - inverse) / inverse, 0, 0.4)
        factor *= 1 - strength * excess * close
    return factor
