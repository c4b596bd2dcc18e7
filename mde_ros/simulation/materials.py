"""Materials drawn at random, with the colours that real rooms have: white, grey, beige, wood."""

import numpy as np

from mde_ros.simulation.shapes import Material
from mde_ros.simulation.textures import VARIANTS, hsv

Rng = np.random.Generator


def patterned(rng: Rng, texture: str, colour, tile_m: float, **look) -> Material:
    return Material(tuple(colour), (texture, int(rng.integers(VARIANTS))), tile_m, **look)


def full_picture(rng: Rng, texture: str, emission: float = 0.0, tile_m: float = 0.0) -> Material:
    """A texture with colours of its own, stretched once over every face of its part."""
    return patterned(rng, texture, (1, 1, 1), tile_m, emission=emission)


def neutral(rng: Rng, darkest: float = 0.3) -> np.ndarray:
    """White, grey or beige: most of what is in real rooms."""
    return hsv(rng.uniform(0.05, 0.15), abs(rng.normal(0, 0.07)), rng.uniform(darkest, 1.0))


def muted(rng: Rng) -> np.ndarray:
    return hsv(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.8))


def vivid(rng: Rng) -> np.ndarray:
    return hsv(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.4, 1.0))


def any_colour(rng: Rng) -> np.ndarray:
    return [neutral, neutral, muted, vivid][rng.choice(4, p=[0.35, 0.2, 0.3, 0.15])](rng)


def wooden(rng: Rng, tile_m: float = 1.0) -> Material:
    colour = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.95))
    return patterned(rng, "wood", colour, tile_m, gloss=rng.uniform(0, 0.4))


def plain(rng: Rng, colour: np.ndarray | None = None) -> Material:
    colour = any_colour(rng) if colour is None else colour
    return Material(tuple(colour), gloss=float(rng.choice([0.0, 0.2, 0.5])))


def metallic(rng: Rng) -> Material:
    value = rng.choice([rng.uniform(0.05, 0.2), rng.uniform(0.4, 0.8)])
    return Material((value, value, value), gloss=0.6)


def clothing(rng: Rng) -> Material:
    colour = hsv(rng.random(), abs(rng.normal(0.15, 0.25)), rng.uniform(0.05, 0.85))
    return patterned(rng, "fabric", colour, 0.5)


def upholstery(rng: Rng) -> Material:
    colour = neutral(rng, 0.1) if rng.random() < 0.5 else muted(rng)
    return patterned(rng, "fabric", colour, 0.6)


def body_material(rng: Rng) -> Material:
    """What cabinets, tables and shelves are made of: wood, white board, sometimes a colour."""
    kind = rng.random()
    if kind < 0.5:
        return wooden(rng)
    return plain(rng, neutral(rng, 0.55) if kind < 0.85 else any_colour(rng))


def surface_material(rng: Rng) -> Material:
    """Anything, for small objects."""
    kind = rng.random()
    if kind < 0.5:
        return plain(rng)
    name = str(rng.choice(["wood", "fabric", "metal", "marble", "cardboard", "picture"]))
    if name == "picture":
        return full_picture(rng, "picture")
    return patterned(rng, name, any_colour(rng), 0.4)


def glowing(rng: Rng, emission: float = 1.0) -> Material:
    return Material(tuple(hsv(rng.uniform(0.06, 0.14), abs(rng.normal(0, 0.1)), 1.0)),
                    emission=emission)  # fmt: skip
