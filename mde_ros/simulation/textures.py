"""Generated textures: every picture in a simulated scene is computed here, none is loaded.

`texture(name, variant)` depends on its two arguments alone, so that processes may each keep
their own cache and still render the same scene. Most textures are light grey patterns that the
colour of a material tints; pictures, books, screens, views and facades carry colours of their own.
"""

import zlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

SIZE = 256  # pixels, both ways
VARIANTS = 12  # different pictures of each kind

Rng = np.random.Generator
Image = np.ndarray  # (SIZE, SIZE) or (SIZE, SIZE, 3) float in 0..1


@cache
def texture(name: str, variant: int) -> np.ndarray:
    """The named texture as (SIZE, SIZE, 3) uint8, row 0 at the top; tiles without a seam.

    Raises:
        ValueError: when there is no texture of that name.
    """
    if name not in PAINTERS:
        raise ValueError(f"no texture {name!r}; there are: {', '.join(sorted(PAINTERS))}")
    rng = np.random.default_rng([zlib.crc32(name.encode()), variant])
    image = PAINTERS[name](rng)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """One colour as (3,) RGB in 0..1; the hue wraps around, the others are clipped."""
    saturation, value = np.clip([saturation, value], 0, 1)
    ramp = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return value * (1 - saturation + saturation * np.clip(ramp, 0, 1))


def noise(rng: Rng, cells: tuple[int, int] = (4, 4), octaves: int = 5, gain: float = 0.55) -> Image:
    """Tileable fractal noise in 0..1, (SIZE, SIZE), `cells` (down, across) in the first octave."""
    total = np.zeros((SIZE, SIZE), np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        rows, columns = cells[0] << octave, cells[1] << octave
        if max(rows, columns) > SIZE:
            break
        grid = np.pad(rng.random((rows, columns), np.float32), 2, mode="wrap")
        step_y, step_x = SIZE // rows, SIZE // columns
        smooth = cv2.resize(
            grid, None, fx=step_x, fy=step_y, interpolation=cv2.INTER_CUBIC if octave < 3 else 1
        )
        total += weight * cv2.resize(
            smooth[2 * step_y : -2 * step_y, 2 * step_x : -2 * step_x], (SIZE, SIZE)
        )
        weights += weight
        weight *= gain
    return np.clip(total / weights, 0, 1)


def blend(dark: np.ndarray, light: np.ndarray, amount: Image) -> Image:
    return dark + (light - dark) * amount[..., None]


def grid() -> tuple[Image, Image]:
    """Pixel coordinates (y, x) in 0..1."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    return y, x


def plaster(rng: Rng) -> Image:
    stain = noise(rng, (2, 2), 3)
    return 0.93 + 0.06 * stain + 0.03 * (noise(rng, (16, 16), 4, 0.8) - 0.5)


def wood(rng: Rng) -> Image:
    """Grain along the columns."""
    grain = noise(rng, (2, 16), 5)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(2, 6) * grid()[1] + 2 * grain))
    strength = rng.uniform(0.1, 0.35)
    return 1 - strength * (0.35 * rings + 0.65 * (1 - grain))


def planks(rng: Rng) -> Image:
    image = wood(rng)
    count = int(rng.choice([4, 8]))
    width = SIZE // count
    seam = rng.uniform(0.55, 0.9)
    for start in range(0, SIZE, width):
        board = np.roll(image[:, start : start + width], int(rng.integers(SIZE)), axis=0)
        image[:, start : start + width] = board * rng.uniform(0.82, 1.0)
        image[:, start] *= seam
        image[int(rng.integers(SIZE)), start : start + width] *= seam
    return image


def tiles(rng: Rng) -> Image:
    count = int(rng.choice([2, 4, 4, 8]))
    width = SIZE // count
    shades = rng.uniform(0.93, 1.0, (count, count))
    if rng.random() < 0.2:  # a chequerboard
        shades[(np.indices((count, count)).sum(0) % 2) == 1] *= rng.uniform(0.4, 0.8)
    image = np.kron(shades, np.ones((width, width))) * (0.92 + 0.1 * noise(rng, (8, 8)))
    joint = np.arange(SIZE) % width < int(rng.integers(2, 4))
    image[joint] = image[:, joint] = rng.uniform(0.45, 0.85)
    return image


def terrazzo(rng: Rng) -> Image:
    speckle = noise(rng, (64, 64), 2, 0.8)
    image = 0.9 - 0.25 * (speckle > rng.uniform(0.6, 0.75)) + 0.08 * (speckle < 0.3)
    return image * (0.94 + 0.06 * noise(rng))


def carpet(rng: Rng) -> Image:
    pile = 0.72 + 0.28 * rng.random((SIZE, SIZE))
    image = cv2.GaussianBlur(pile, (3, 3), 0) * (0.85 + 0.2 * noise(rng, (4, 4), 4))
    if rng.random() < 0.3:
        width = SIZE // 4
        image *= np.kron(rng.uniform(0.85, 1, (4, 4)), np.ones((width, width)))
    return image


def rug(rng: Rng) -> Image:
    y, x = grid()
    ground, figure = (
        hsv(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.85)) for _ in "ab"
    )
    kind = rng.integers(4)
    waves = int(rng.integers(2, 9))
    radius = np.maximum(abs(x - 0.5), abs(y - 0.5))
    mask = [
        np.sin(2 * np.pi * waves * x) > 0.3,
        (np.sin(2 * np.pi * waves * x) * np.sin(2 * np.pi * waves * y)) > 0.2,
        (radius > 0.38) & (radius < 0.45),
        noise(rng, (6, 6), 2) > 0.55,
    ][kind]
    return blend(ground, figure, mask * 0.8) * (0.75 + 0.3 * rng.random((SIZE, SIZE, 1)))


def fabric(rng: Rng) -> Image:
    y, x = np.mgrid[:SIZE, :SIZE]
    weave = 0.92 + 0.08 * np.sin(x * np.pi / 2) * np.sin(y * np.pi / 2)
    image = weave * (0.82 + 0.22 * noise(rng, (6, 6)))
    if rng.random() < 0.25:
        period = int(rng.choice([16, 32, 64]))
        stripes = (x // period) % 2 == 0
        if rng.random() < 0.4:
            stripes ^= (y // period) % 2 == 0
        image[stripes] *= rng.uniform(0.5, 0.9)
    return image


def marble(rng: Rng) -> Image:
    veins = np.abs(np.sin(4 * np.pi * noise(rng, (3, 3), 6, 0.6))) ** 0.4
    return 0.75 + 0.25 * veins


def wallpaper(rng: Rng) -> Image:
    y, x = grid()
    count = int(rng.choice([4, 8, 16]))
    u, v = x * count % 1 - 0.5, y * count % 1 - 0.5
    figure = [u**2 + v**2 < 0.05, abs(u) + abs(v) < 0.3, abs(u) < 0.2][rng.integers(3)]
    return 0.97 - rng.uniform(0.02, 0.13) * figure + 0.04 * (noise(rng) - 0.5)


def concrete(rng: Rng) -> Image:
    return 0.7 + 0.25 * noise(rng, (3, 3), 7, 0.7) + 0.04 * rng.random((SIZE, SIZE))


def brick(rng: Rng) -> Image:
    rows, columns = 8, 4
    height, width = SIZE // rows, SIZE // columns
    image = np.zeros((SIZE, SIZE))
    for row in range(rows):
        course = np.repeat(rng.uniform(0.65, 1.0, columns), width)
        course[::width] = course[1::width] = 1.1
        image[row * height : (row + 1) * height] = np.roll(course, (row % 2) * width // 2)
        image[row * height : row * height + 2] = 1.1
    return image * (0.8 + 0.25 * noise(rng, (16, 16)))


def blocks(rng: Rng) -> Image:
    """Painted concrete masonry: the joints show, hardly a colour."""
    return 0.55 + 0.45 * np.minimum(brick(rng), 0.9) ** 0.3 * (0.95 + 0.05 * noise(rng, (16, 16)))


def panels(rng: Rng) -> Image:
    """A suspended ceiling of 2 x 2 panels, dotted."""
    holes = rng.random((SIZE, SIZE)) < 0.06
    image: np.ndarray = cv2.GaussianBlur(0.95 - 0.08 * holes, (3, 3), 0)
    edge = np.arange(SIZE) % (SIZE // 2) < 3
    image[edge] = image[:, edge] = rng.uniform(0.7, 1.0)
    return image


def boards(rng: Rng) -> Image:
    """Vertical cladding or fronts: narrow dark joints."""
    image = 0.95 + 0.04 * noise(rng, (2, 16))
    image[:, np.arange(SIZE) % (SIZE // int(rng.choice([4, 8]))) < 2] *= 0.7
    return image


def metal(rng: Rng) -> Image:
    return 0.85 + 0.15 * noise(rng, (64, 1), 3)


def cardboard(rng: Rng) -> Image:
    image = 0.9 + 0.08 * noise(rng, (1, 32), 3)
    middle = SIZE // 2
    image[:, middle - 14 : middle + 14] *= rng.uniform(0.8, 1.1)
    if rng.random() < 0.6:
        top, left = rng.integers(20, 150, 2)
        image[top : top + 50, left : left + 80] = 1.0
        image[top + 8 : top + 40 : 6, left + 8 : left + 70] = 0.4
    return image


def leaves(rng: Rng) -> Image:
    spots = np.clip(2.2 * noise(rng, (20, 20), 3) - 0.6, 0, 1)
    hue = rng.uniform(0.2, 0.36)
    return blend(hsv(hue, 0.6, 0.1), hsv(hue, 0.5, rng.uniform(0.35, 0.6)), spots)


def asphalt(rng: Rng) -> Image:
    image = 0.72 + 0.18 * rng.random((SIZE, SIZE)) + 0.15 * noise(rng, (3, 3), 6)
    cracks = np.abs(noise(rng, (3, 3), 5) - 0.5) < 0.004
    return image - 0.25 * cracks


def grass(rng: Rng) -> Image:
    return blend(hsv(0.26, 0.5, 0.2), hsv(0.2, 0.45, 0.5), noise(rng, (16, 16), 4, 0.9))


def paint_window_grid(rng: Rng, image: Image, rows: int, columns: int) -> Image:
    """Windows with frames, sky reflected in some and curtains behind others."""
    height, width = SIZE // rows, SIZE // columns
    frame = rng.uniform(0.3, 0.95)
    for row in range(rows):
        for column in range(columns):
            top, left = row * height + height // 5, column * width + width // 5
            bottom, right = row * height + height * 17 // 20, (column + 1) * width - width // 5
            image[top - 2 : bottom + 3, left - 2 : right + 2] = frame
            pane = hsv(0.58, 0.2, rng.uniform(0.08, 0.7))
            ramp = np.linspace(1.2, 0.7, bottom - top)[:, None, None]
            image[top:bottom, left:right] = pane * ramp
            image[top:bottom, (left + right) // 2] = frame
    return image


def facade(rng: Rng) -> Image:
    base = rng.choice([0, 0, 1, 2])
    pattern = [plaster, brick, concrete][base](rng)
    if base == 1:  # bricks are small on a house
        pattern = np.tile(cv2.resize(pattern, None, fx=0.25, fy=0.25, interpolation=3), (4, 4))
    hue, strength = rng.uniform(0.02, 0.14), rng.uniform(0, 0.35 if base != 1 else 0.55)
    image = pattern[..., None] * hsv(hue, strength, rng.uniform(0.45, 0.95))
    rows, columns = int(rng.choice([2, 2, 4])), int(rng.choice([2, 3, 4, 6]))
    return paint_window_grid(rng, image, rows, columns)


def books(rng: Rng) -> Image:
    image = np.full((SIZE, SIZE, 3), 0.06)
    left = 0
    while left < SIZE:
        right = min(SIZE, left + int(rng.integers(7, 22)))
        top = int(rng.integers(5, 90))
        spine = hsv(rng.random(), rng.uniform(0.05, 0.7), rng.uniform(0.2, 0.9))
        roundness = np.sin(np.linspace(0.5, 2.6, right - left))[None, :, None]
        image[top:, left:right] = spine * roundness
        label = int(rng.integers(top + 10, SIZE - 40))
        image[label : label + 14, left:right] *= rng.choice([0.6, 1.6])
        left = right
    return image


def picture(rng: Rng) -> Image:
    """A poster or a painting: a gradient with shapes and lines on it."""
    y, x = grid()
    hue = rng.random()
    sky, ground = hsv(hue, rng.uniform(0, 0.5), 0.9), hsv(hue + 0.1, rng.uniform(0, 0.5), 0.4)
    image = blend(sky, ground, np.broadcast_to(y, (SIZE, SIZE)).copy())
    for _ in range(int(rng.integers(3, 16))):
        colour = hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 1))
        centre, half = rng.random(2), rng.uniform(0.03, 0.3, 2)
        angle = rng.uniform(0, np.pi)
        u = ((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)) / half[0]
        v = ((y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)) / half[1]
        inside = u * u + v * v < 1 if rng.random() < 0.5 else np.maximum(abs(u), abs(v)) < 1
        image[inside] = colour
    image *= (0.85 + 0.2 * noise(rng))[..., None]
    if rng.random() < 0.5:  # a white margin
        border = int(rng.integers(8, 30))
        image[:border] = image[-border:] = image[:, :border] = image[:, -border:] = 0.92
    return image


def paint_lines_of_text(rng: Rng, image: Image, box: tuple[int, int, int, int], ink: float) -> None:
    top, bottom, left, right = box
    for row in range(top, bottom - 3, int(rng.integers(6, 10))):
        column = left + int(rng.integers(0, 12))
        end = int(rng.integers(left + 10, max(left + 11, right)))
        while column < end:
            width = int(rng.integers(3, 14))
            image[row : row + 3, column : min(column + width, right)] = ink
            column += width + 3


def screen(rng: Rng) -> Image:
    """What a monitor shows: windows of text and pictures, light or dark."""
    dark = rng.random() < 0.4
    background, ink = (0.12, 0.75) if dark else (0.92, 0.2)
    image = np.full((SIZE, SIZE, 3), background)
    paint_lines_of_text(rng, image, (20, 240, 12, int(rng.integers(120, 240))), ink)
    for _ in range(int(rng.integers(0, 3))):
        top, left = rng.integers(10, 180, 2)
        image[top : top + 60, left : left + 70] = hsv(rng.random(), 0.5, rng.uniform(0.3, 0.9))
    image[:14] = hsv(0.6, rng.uniform(0, 0.5), rng.uniform(0.1, 0.6))
    return image


def whiteboard(rng: Rng) -> Image:
    image = np.full((SIZE, SIZE, 3), 0.96)
    for _ in range(int(rng.integers(0, 5))):
        top, left = rng.integers(10, 170, 2)
        colour = hsv(rng.choice([0.0, 0.35, 0.62]), 0.8, rng.uniform(0.1, 0.7))
        points = (np.array([left, top]) + rng.integers(0, 80, (6, 2))).astype(np.int32)
        cv2.polylines(image, [points], False, colour.tolist(), 2)
        paint_lines_of_text(rng, image, (top, top + 40, left, min(SIZE, left + 90)), 0.3)
    return image


def outside(rng: Rng) -> Image:
    """An over-exposed blurred view from a window: sky, houses, trees."""
    y, _ = grid()
    image = blend(hsv(0.58, 0.25, 0.95), np.ones(3), np.broadcast_to(y, (SIZE, SIZE)).copy())
    horizon = int(rng.uniform(0.4, 0.8) * SIZE)
    for left in range(0, SIZE, 32):
        top = horizon - int(rng.integers(0, 90))
        image[top:, left : left + 32] = hsv(rng.uniform(0, 0.15), 0.15, rng.uniform(0.45, 0.9))
    for _ in range(5):
        centre = (int(rng.integers(SIZE)), horizon + int(rng.integers(0, 60)))
        green = hsv(0.24, 0.3, rng.uniform(0.3, 0.6)).tolist()
        cv2.circle(image, centre, int(rng.integers(15, 50)), green, -1)
    image = (
        cv2.GaussianBlur(image, (0, 0), rng.uniform(4, 16)) * (0.8 + 0.3 * noise(rng))[..., None]
    )
    return np.clip(image * rng.uniform(0.9, 1.6) + rng.uniform(0, 0.4), 0, 1)


def clouds(rng: Rng) -> Image:
    return np.clip(2.2 * noise(rng, (3, 3), 6, 0.55) - 0.4, 0, 1)


PAINTERS: dict[str, Callable[[Rng], Image]] = {
    painter.__name__: painter
    for painter in (
        plaster, wood, planks, tiles, terrazzo, carpet, rug, fabric, marble, wallpaper, concrete,
        brick, blocks, panels, boards, metal, cardboard, leaves, asphalt, grass, facade, books,
        picture, screen, whiteboard, outside, clouds,
    )
}  # fmt: skip
