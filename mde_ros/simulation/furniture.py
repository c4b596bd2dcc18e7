"""Furniture and clutter: each function draws one piece from a random generator.

A piece stands on the floor at its own origin: x to its side, y to its front, z up, metres.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from mde_ros.simulation.materials import (
    body_material,
    clothing,
    full_picture,
    glowing,
    metallic,
    neutral,
    patterned,
    plain,
    surface_material,
    upholstery,
    wooden,
)
from mde_ros.simulation.shapes import Material, Piece, SceneObject, yaw_pose
from mde_ros.simulation.textures import hsv

Rng = np.random.Generator


# --------------------------------------------------------------------------- small things


def clutter(rng: Rng) -> SceneObject:
    """One small thing that stands on a table, a shelf or the floor."""
    thing = SceneObject("clutter")
    size = rng.uniform(0.03, 0.13)
    material = surface_material(rng)
    kind = rng.integers(9)
    if kind == 0:
        thing.box((0, 0, size), (size, size * rng.uniform(0.4, 1), size), material)
    elif kind == 1:  # a cup or a tin
        thing.cylinder((0, 0, size * 0.7), size * 0.5, size * 0.7, material)
    elif kind == 2:  # a bottle
        thing.cylinder((0, 0, 0.09), 0.035, 0.09, material)
        thing.cone((0, 0, 0.2), 0.033, 0.025, material).cylinder(
            (0, 0, 0.24), 0.014, 0.02, material
        )
    elif kind == 3:
        thing.sphere((0, 0, size * 0.7), size * 0.7, material)
    elif kind == 4:  # a desk lamp
        dark = metallic(rng)
        thing.cylinder((0, 0, 0.01), 0.08, 0.01, dark).rod(
            (0, 0, 0.02), (0, 0.1, 0.33), 0.009, dark
        )
        thing.cone((0, 0.14, 0.34), 0.09, 0.05, plain(rng))
    elif kind == 5:  # a pile of books or papers
        for layer in range(int(rng.integers(1, 7))):
            half = (rng.uniform(0.08, 0.11), rng.uniform(0.11, 0.15), 0.014)
            thing.box((0, 0, 0.015 + 0.03 * layer), half, plain(rng), rng.uniform(-0.3, 0.3))
    elif kind == 6:  # a laptop
        shell = plain(rng, hsv(0.6, 0.03, rng.choice([0.15, 0.7])))
        thing.box((0, 0, 0.008), (0.16, 0.11, 0.008), shell)
        lid = yaw_pose(0, -0.14, 0.11)
        thing.box(lid[:3, 3], (0.16, 0.006, 0.1), shell)
        thing.box((0, -0.132, 0.11), (0.15, 0.004, 0.09), full_picture(rng, "screen", 0.7))
    elif kind == 7:  # a sheet of paper
        thing.box((0, 0, 0.003), (0.105, 0.15, 0.003), full_picture(rng, "whiteboard"))
    else:  # a bowl or a vase
        thing.cone((0, 0, size), size, -size, material)
    return thing


def scatter(rng: Rng, count: int, half: tuple[float, float], height: float) -> list[SceneObject]:
    """Clutter spread over a rectangle at some height, one thing per cell of a grid."""
    columns = max(1, int(half[0] / 0.14))
    rows = max(1, int(half[1] / 0.14))
    cells = rng.permutation(columns * rows)[:count]
    things = []
    for cell in cells:
        x = ((cell % columns) + rng.uniform(0.4, 0.6)) / columns * 2 - 1
        y = ((cell // columns) + rng.uniform(0.4, 0.6)) / rows * 2 - 1
        place = yaw_pose(x * (half[0] - 0.06), y * (half[1] - 0.06), height, rng.uniform(0, 7))
        things.append(clutter(rng).moved(place))
    return things


def monitor(rng: Rng, height: float, scale: float = 1.0) -> SceneObject:
    """A screen on its foot; its front faces +y."""
    shell = plain(rng, hsv(0, 0, rng.choice([0.06, 0.1, 0.8])))
    wide, tall = scale * rng.uniform(0.22, 0.38), scale * rng.uniform(0.14, 0.2)
    screen = SceneObject("monitor")
    screen.box((0, 0, height + 0.008), (0.11, 0.08, 0.008), shell)
    screen.box((0, -0.02, height + 0.12), (0.02, 0.01, 0.12), shell)
    screen.box((0, 0, height + 0.12 + tall), (wide, 0.015, tall), shell)
    glow = rng.choice([0.0, 0.6, 0.9])
    face = full_picture(rng, "screen", glow) if glow else plain(rng, hsv(0, 0, 0.05))
    return screen.box((0, 0.014, height + 0.12 + tall), (wide - 0.012, 0.004, tall - 0.012), face)


# ------------------------------------------------------------------------------ furniture


def four_legs(thing: SceneObject, x: float, y: float, height: float, half: float, material) -> None:
    for side in (-1, 1):
        for end in (-1, 1):
            thing.box((side * x, end * y, height / 2), (half, half, height / 2), material)


def table(rng: Rng) -> Piece:
    """A table with things on it, often with chairs around."""
    x, y = rng.uniform(0.35, 1.0), rng.uniform(0.3, 0.5)
    height = float(rng.choice([rng.uniform(0.35, 0.5), rng.uniform(0.68, 0.78)], p=[0.3, 0.7]))
    top, legs = body_material(rng), metallic(rng) if rng.random() < 0.5 else wooden(rng)
    thing = SceneObject("table").box((0, 0, height - 0.015), (x, y, 0.015), top)
    if rng.random() < 0.25:
        thing.cylinder((0, 0, height / 2), 0.04, height / 2 - 0.015, legs)
        thing.cylinder((0, 0, 0.015), 0.28, 0.015, legs)
    else:
        four_legs(thing, x - 0.05, y - 0.05, height - 0.03, rng.uniform(0.012, 0.035), legs)
    objects = [thing, *scatter(rng, int(rng.integers(0, 7)), (x, y), height)]
    reach = y
    if height > 0.6 and rng.random() < 0.7:
        model = int(rng.integers(2**31))
        for side in (-1, 1):
            for slot in np.arange(-x + 0.35, x - 0.2, 0.6).tolist():
                if rng.random() < 0.75:
                    seat = dining_chair(np.random.default_rng(model)).objects[0]
                    turn = (np.pi if side > 0 else 0.0) + rng.normal(0, 0.2)
                    out = side * (y + rng.uniform(0.0, 0.3))
                    objects.append(seat.moved(yaw_pose(slot + 0.02, out, 0, turn)))
                    reach = y + 0.45
    return Piece(objects, (x, reach))


def dining_chair(rng: Rng) -> Piece:
    half, height = rng.uniform(0.19, 0.23), rng.uniform(0.42, 0.48)
    frame = [wooden, metallic, plain][rng.integers(3)](rng)
    seat = upholstery(rng) if rng.random() < 0.4 else plain(rng) if rng.random() < 0.5 else frame
    thing = SceneObject("chair").box((0, 0, height), (half, half, 0.02), seat)
    four_legs(thing, half - 0.02, half - 0.02, height, rng.uniform(0.01, 0.02), frame)
    back = rng.uniform(0.18, 0.25)
    top = height + 2 * back
    for side in (-1, 1):
        x = side * (half - 0.02)
        thing.rod((x, -half + 0.02, height), (x, -half - 0.04, top), 0.013, frame)
    if rng.random() < 0.5:
        thing.box((0, -half - 0.01, top - back * 0.8), (half, 0.012, back * 0.8), seat)
    else:
        for level in np.linspace(height + 0.12, top - 0.03, int(rng.integers(2, 5))):
            thing.box((0, -half - 0.02, level), (half - 0.02, 0.008, 0.02), frame)
    return Piece([thing], (half, half + 0.05))


def office_chair(rng: Rng) -> Piece:
    """A swivel chair on five thin legs."""
    dark = plain(rng, hsv(0, 0, rng.choice([0.06, 0.12, 0.6])))
    cloth = upholstery(rng)
    height = rng.uniform(0.42, 0.52)
    thing = SceneObject("office chair")
    for angle in np.arange(5) * 2 * np.pi / 5 + rng.random():
        foot = (0.29 * np.cos(angle), 0.29 * np.sin(angle), 0.07)
        thing.rod((0, 0, 0.12), foot, 0.018, dark)
        thing.sphere((foot[0], foot[1], 0.03), 0.03, dark)
    thing.cylinder((0, 0, height / 2 + 0.05), 0.025, height / 2 - 0.05, dark)
    thing.box((0, 0, height), (0.23, 0.23, 0.035), cloth)
    tall = rng.uniform(0.2, 0.33)
    thing.box((0, -0.23, height + 0.1 + tall), (0.21, 0.03, tall), cloth)
    thing.box((0, -0.25, height + 0.1), (0.03, 0.015, 0.14), dark)
    if rng.random() < 0.6:
        for side in (-1, 1):
            thing.box((side * 0.26, 0, height + 0.2), (0.03, 0.13, 0.015), dark)
            thing.box((side * 0.26, -0.05, height + 0.1), (0.012, 0.02, 0.1), dark)
    return Piece([thing], (0.33, 0.33))


def desk(rng: Rng) -> Piece:
    """An office desk with monitors, a keyboard, papers, and a chair before it."""
    x, y, height = rng.uniform(0.55, 0.95), rng.uniform(0.33, 0.42), rng.uniform(0.68, 0.78)
    top, frame = body_material(rng), metallic(rng)
    thing = SceneObject("desk").box((0, 0, height - 0.0125), (x, y, 0.0125), top)
    if rng.random() < 0.5:
        four_legs(thing, x - 0.04, y - 0.04, height - 0.025, 0.02, frame)
    else:
        for side in (-1, 1):
            thing.box(
                (side * (x - 0.015), 0, height / 2), (0.012, y - 0.02, height / 2 - 0.02), top
            )
        thing.box((0, -y + 0.03, height * 0.6), (x - 0.03, 0.009, height * 0.3), top)
    objects = [thing]
    if rng.random() < 0.5:  # a drawer unit under it
        box = SceneObject("drawers").box((0, 0, 0.29), (0.2, 0.26, 0.27), body_material(rng))
        objects.append(box.moved(yaw_pose(rng.choice([-1, 1]) * (x - 0.25), -0.05)))
    slots = np.arange(-x + 0.3, x - 0.25, 0.62)
    for slot in slots[: int(rng.integers(1, 3))]:
        place = yaw_pose(slot, -y + 0.16, 0, rng.normal(0, 0.1))
        objects.append(monitor(rng, height).moved(place))
        keys = SceneObject("keyboard").box((0, 0, 0.01), (0.2, 0.07, 0.01), plain(rng))
        objects.append(keys.moved(yaw_pose(slot, y * 0.35, height)))
    objects += scatter(rng, int(rng.integers(0, 4)), (x, y * 0.5), height)
    seat = office_chair(rng) if rng.random() < 0.8 else dining_chair(rng)
    place = yaw_pose(
        rng.uniform(-0.2, 0.2), y + rng.uniform(0.05, 0.4), 0, np.pi + rng.normal(0, 0.5)
    )
    objects += seat.moved(place)
    if rng.random() < 0.5:  # a cable down to the floor
        cable, black = SceneObject("cable"), Material((0.03, 0.03, 0.03))
        bend = rng.uniform(-0.2, 0.2)
        cable.rod((bend, -y + 0.02, height), (0, -y + 0.05, 0.1), 0.006, black)
        cable.rod((0, -y + 0.05, 0.1), (bend * 2, y * 0.5, 0.006), 0.006, black)
        objects.append(cable)
    return Piece(objects, (x, y + 0.35))


def sofa(rng: Rng) -> Piece:
    cloth = upholstery(rng)
    x = float(rng.choice([rng.uniform(0.4, 0.5), rng.uniform(0.75, 1.15)], p=[0.35, 0.65]))
    low, arm = rng.uniform(0.03, 0.12), rng.uniform(0.06, 0.13)
    thing = SceneObject("sofa").box((0, 0, low + 0.15), (x, 0.42, 0.15), cloth)
    thing.box((0, -0.34, 0.55), (x, 0.09, rng.uniform(0.22, 0.33)), cloth)
    seats = max(1, round(x / 0.4))
    wide = (x - arm) / seats
    for seat in range(seats):
        thing.box(
            (-x + arm + wide * (2 * seat + 1), 0.06, low + 0.36), (wide - 0.01, 0.34, 0.07), cloth
        )
    for side in (-1, 1):
        thing.box((side * x, 0, 0.32), (arm, 0.42, 0.29), cloth)
    four_legs(thing, x - 0.05, 0.36, low + 0.02, 0.02, wooden(rng))
    objects = [thing]
    for _ in range(int(rng.integers(0, 4))):
        place = yaw_pose(rng.uniform(-x + 0.3, x - 0.3), -0.15, low + 0.43, rng.uniform(-0.4, 0.4))
        cushion = SceneObject("cushion").box((0, 0, 0.16), (0.2, 0.06, 0.16), upholstery(rng))
        objects.append(cushion.moved(place))
    return Piece(objects, (x + arm, 0.44))


def bed(rng: Rng) -> Piece:
    """Its head is at -y."""
    frame, sheet = body_material(rng), upholstery(rng)
    x = float(rng.choice([0.46, 0.7, 0.85]))
    thing = SceneObject("bed").box((0, 0, 0.18), (x, 1.0, 0.1), frame)
    thing.box((0, -1.0, 0.45), (x, 0.03, 0.4), frame)
    thing.box((0, 0, 0.37), (x * 0.97, 0.97, 0.1), Material((0.9, 0.89, 0.86)))
    cover = SceneObject("blanket").box((0, 0.25, 0.4), (x * 1.01, 0.73, 0.11), sheet)
    objects = [thing, cover]
    for side in (-1, 1) if x > 0.5 else (0,):
        pillow = SceneObject("pillow")
        pillow.sphere((side * x * 0.48, -0.72, 0.5), (0.3, 0.2, 0.09), Material((0.93, 0.92, 0.9)))
        objects.append(pillow)
    return Piece(objects, (x, 1.03))


def bookshelf(rng: Rng) -> Piece:
    """Open shelves with rows of books, boxes and gaps."""
    body = body_material(rng)
    x, half_height, depth = rng.uniform(0.3, 0.8), rng.uniform(0.4, 1.1), rng.uniform(0.13, 0.18)
    count = max(2, int(2 * half_height / rng.uniform(0.3, 0.42)))
    thing = SceneObject("shelf")
    if rng.random() < 0.7:
        thing.box((0, -depth + 0.005, half_height), (x, 0.005, half_height), body)
    for side in (-1, 1):
        thing.box((side * x, 0, half_height), (0.01, depth, half_height), body)
    objects = [thing]
    step = 2 * half_height / count
    for level in range(count + 1):
        z = max(level * step, 0.012)
        thing.box((0, 0, z), (x, depth, 0.01), body)
        if level == count:
            break
        kind = rng.random()
        if kind < 0.6:
            half_long = rng.uniform(0.4, 0.97) * x
            tall = step * rng.uniform(0.3, 0.44)
            row = SceneObject("books")
            row.box((0, 0, tall), (half_long, depth - 0.05, tall), full_picture(rng, "books"))
            shift = float(rng.choice([-1, 1])) * (x - half_long - 0.01)
            objects.append(row.moved(yaw_pose(shift, -0.02, z + 0.011)))
        elif kind < 0.8:
            for slot in np.arange(-x + 0.16, x - 0.1, 0.3).tolist():
                objects.append(clutter(rng).moved(yaw_pose(slot, 0, z + 0.011, rng.normal(0, 0.3))))
    return Piece(objects, (x, depth))


def cabinet(rng: Rng) -> Piece:
    """A chest, a wardrobe or a filing cabinet: doors or drawers with handles."""
    body, handle = body_material(rng), metallic(rng)
    x, y = rng.uniform(0.2, 0.75), rng.uniform(0.2, 0.3)
    half_height = float(rng.choice([rng.uniform(0.25, 0.55), rng.uniform(0.85, 1.1)]))
    thing = SceneObject("cabinet").box((0, 0, half_height + 0.02), (x, y, half_height), body)
    columns = 1 if x < 0.35 else 2
    rows = int(rng.integers(1, 5)) if half_height < 0.7 else 1
    wide, tall = x / columns, half_height / rows
    for column in range(columns):
        for row in range(rows):
            cx, cz = -x + wide * (2 * column + 1), 0.02 + tall * (2 * row + 1)
            thing.box((cx, y + 0.006, cz), (wide - 0.006, 0.008, tall - 0.006), body)
            side = wide * 0.8 * (1 if column == 0 else -1) if rows == 1 else 0.0
            bar = (0.006, 0.01, 0.06) if rows == 1 else (0.06, 0.01, 0.006)
            thing.box((cx + side, y + 0.025, cz), bar, handle)
    objects = [thing]
    if half_height < 0.7:
        objects += scatter(rng, int(rng.integers(0, 4)), (x, y), 2 * half_height + 0.02)
    return Piece(objects, (x, y))


def kitchen_counter(rng: Rng) -> Piece:
    """Base units with a worktop, tiles behind, wall units, a sink or a stove."""
    front, top = body_material(rng), patterned(rng, "marble", neutral(rng, 0.25), 0.8, gloss=0.4)
    units = int(rng.integers(2, 6))
    x, y = 0.3 * units, 0.3
    steel = Material((0.6, 0.6, 0.62), gloss=0.7)
    thing = SceneObject("counter").box((0, 0, 0.46), (x, y - 0.02, 0.42), front)
    thing.box((0, 0.01, 0.9), (x + 0.01, y + 0.01, 0.02), top)
    splash = patterned(rng, "tiles", neutral(rng, 0.6), 0.6, gloss=0.3)
    thing.box((0, -y + 0.005, 1.2), (x, 0.005, 0.28), splash)
    for unit in range(units):
        cx = -x + 0.3 + 0.6 * unit
        thing.box((cx, y - 0.01, 0.46), (0.292, 0.01, 0.38), front)
        thing.box((cx, y + 0.015, 0.78), (0.12, 0.008, 0.006), steel)
    objects = [thing]
    if rng.random() < 0.8:
        wall_units = SceneObject("wall units")
        hood = int(rng.integers(units))
        for unit in range(units):
            if unit != hood:
                cx = -x + 0.3 + 0.6 * unit
                wall_units.box((cx, -0.13, 1.82), (0.296, 0.165, 0.35), front)
        objects.append(wall_units)
        if units > 2:
            stove = SceneObject("stove")
            stove.box((-x + 0.3 + 0.6 * hood, 0, 0.924), (0.28, 0.25, 0.004), Material((0.03,) * 3))
            stove.box((-x + 0.3 + 0.6 * hood, -0.05, 1.6), (0.28, 0.22, 0.04), steel)
            objects.append(stove)
    tap = SceneObject("tap")
    tap.rod((0, -0.2, 0.92), (0, -0.2, 1.17), 0.013, steel).rod(
        (0, -0.2, 1.17), (0, -0.03, 1.15), 0.011, steel
    )
    tap.box((0, 0.02, 0.921), (0.25, 0.18, 0.003), Material((0.35, 0.35, 0.37), gloss=0.7))
    objects.append(tap.moved(yaw_pose(rng.uniform(-x + 0.3, x - 0.3), 0)))
    objects += scatter(rng, int(rng.integers(1, 6)), (x, 0.2), 0.92)
    return Piece(objects, (x, y + 0.02))


def appliance(rng: Rng) -> Piece:
    """A fridge, a printer, a washing machine: a big plain box with a few details."""
    colour = plain(rng, hsv(0, 0, rng.choice([0.1, 0.6, 0.92])))
    half_height = float(rng.choice([0.43, 0.6, 0.95]))
    thing = SceneObject("appliance").box(
        (0, 0, half_height + 0.01), (0.3, 0.3, half_height), colour
    )
    thing.box((0, 0.305, half_height * 1.2), (0.29, 0.008, half_height * 0.78), colour)
    thing.box((0.24, 0.33, half_height * 1.2), (0.01, 0.015, 0.2), metallic(rng))
    return Piece([thing], (0.3, 0.34))


def storage_rack(rng: Rng) -> Piece:
    """A warehouse rack: steel posts, decks, cartons and bins."""
    steel = plain(rng, [hsv(0.6, 0.7, 0.5), hsv(0.07, 0.8, 0.85), hsv(0, 0, 0.6)][rng.integers(3)])
    x, y = rng.uniform(0.5, 1.35), rng.uniform(0.22, 0.45)
    levels, step = int(rng.integers(3, 6)), rng.uniform(0.4, 0.75)
    rack = SceneObject("rack")
    height = levels * step
    for side in (-1, 1):
        for end in (-1, 1):
            rack.box((side * x, end * y, height / 2), (0.022, 0.022, height / 2), steel)
        rack.rod((side * x, -y, 0.1), (side * x, y, min(1.0, height)), 0.01, steel)
    deck = wooden(rng) if rng.random() < 0.4 else metallic(rng)
    objects = [rack]
    for level in range(levels):
        z = 0.1 + level * step
        rack.box((0, 0, z), (x, y, 0.02), deck)
        left = -x + 0.03
        while left < x - 0.2:
            wide = rng.uniform(0.1, 0.28)
            if left + 2 * wide < x and rng.random() < 0.8:
                tall = rng.uniform(0.08, step / 2 - 0.06)
                box = SceneObject("carton")
                box.box((left + wide, rng.uniform(-0.05, 0.05), z + 0.02 + tall),
                        (wide - 0.01, y * rng.uniform(0.5, 0.95), tall), carton_material(rng),
                        rng.normal(0, 0.05))  # fmt: skip
                objects.append(box)
            left += 2 * wide
    return Piece(objects, (x + 0.03, y + 0.03))


def carton_material(rng: Rng) -> Material:
    if rng.random() < 0.65:
        colour = hsv(rng.uniform(0.06, 0.1), rng.uniform(0.3, 0.5), rng.uniform(0.45, 0.8))
        return patterned(rng, "cardboard", colour, 0.0)
    return plain(rng)


def cartons(rng: Rng) -> Piece:
    """A stack of boxes, sometimes on a pallet."""
    objects, base = [], 0.0
    half = rng.uniform(0.15, 0.35, 2)
    if rng.random() < 0.4:
        pallet, slats = SceneObject("pallet"), wooden(rng)
        half = np.array([0.6, 0.4])
        for y in np.linspace(-0.35, 0.35, 5):
            pallet.box((0, y, 0.135), (0.6, 0.05, 0.01), slats)
        for x in (-0.52, 0, 0.52):
            pallet.box((x, 0, 0.06), (0.05, 0.4, 0.06), slats)
        objects.append(pallet)
        base = 0.145
    for _ in range(int(rng.integers(1, 5))):
        tall = rng.uniform(0.08, 0.22)
        size = half * rng.uniform(0.7, 1.0, 2)
        box = SceneObject("carton").box((0, 0, base + tall), (*size, tall), carton_material(rng),
                                        rng.normal(0, 0.12))  # fmt: skip
        objects.append(box)
        base += 2 * tall
    return Piece(objects, tuple(half * 1.1))


def plant(rng: Rng) -> Piece:
    pot, green = surface_material(rng), full_picture(rng, "leaves", tile_m=0.25)
    height, thing = rng.uniform(0.3, 1.2), SceneObject("plant")
    thing.cone((0, 0, 0.14), 0.17, -0.14, pot)
    if rng.random() < 0.5:  # long leaves
        for _ in range(int(rng.integers(6, 16))):
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.35)
            tip = (
                reach * np.cos(angle),
                reach * np.sin(angle),
                0.28 + height * rng.uniform(0.4, 1),
            )
            thing.rod((0, 0, 0.25), tip, rng.uniform(0.008, 0.02), green)
            thing.sphere(tip, rng.uniform(0.03, 0.1, 3), green)
    else:
        thing.rod((0, 0, 0.25), (0, 0, 0.28 + height), 0.015, wooden(rng))
        for _ in range(int(rng.integers(6, 14))):
            centre = (*rng.normal(0, 0.13, 2), 0.28 + height * rng.uniform(0.4, 1.1))
            thing.sphere(centre, rng.uniform(0.05, 0.16, 3), green)
    return Piece([thing], (0.25, 0.25))


def floor_lamp(rng: Rng) -> Piece:
    stand, height = metallic(rng), rng.uniform(1.2, 1.8)
    lamp = SceneObject("lamp").cylinder((0, 0, 0.012), 0.14, 0.012, stand)
    lamp.cylinder((0, 0, height / 2), 0.012, height / 2, stand)
    lamp.cone(
        (0, 0, height + 0.05),
        rng.uniform(0.13, 0.25),
        rng.uniform(0.08, 0.16),
        glowing(rng, rng.choice([0.1, 0.7])),
    )
    return Piece([lamp], (0.16, 0.16))


def stand(rng: Rng) -> Piece:
    """Thin things that stand alone: a coat stand, a tripod, a pole with a base."""
    thing, material = SceneObject("stand"), metallic(rng) if rng.random() < 0.7 else wooden(rng)
    height = rng.uniform(1.0, 1.8)
    if rng.random() < 0.5:
        thing.cylinder((0, 0, 0.012), 0.17, 0.012, material)
        thing.cylinder((0, 0, height / 2), 0.015, height / 2, material)
        for angle in np.arange(4) * np.pi / 2:
            tip = (0.14 * np.cos(angle), 0.14 * np.sin(angle), height + 0.02)
            thing.rod((0, 0, height - 0.1), tip, 0.01, material)
        if rng.random() < 0.6:
            thing.sphere((0.12, 0, height - 0.4), (0.13, 0.2, 0.38), clothing(rng))
    else:
        for angle in np.arange(3) * 2 * np.pi / 3 + rng.random():
            foot = (0.28 * np.cos(angle), 0.28 * np.sin(angle), 0.01)
            thing.rod((0, 0, height * 0.7), foot, 0.012, material)
        thing.rod((0, 0, height * 0.6), (0, 0, height), 0.014, material)
        thing.box((0, 0, height), (0.06, 0.08, 0.05), plain(rng))
    return Piece([thing], (0.26, 0.26))


def waste_bin(rng: Rng) -> Piece:
    half, tall = rng.uniform(0.1, 0.2), rng.uniform(0.14, 0.35)
    thing = SceneObject("bin")
    if rng.random() < 0.5:
        thing.cylinder((0, 0, tall), half, tall, plain(rng))
    else:
        thing.box((0, 0, tall), (half, half, tall), plain(rng))
    return Piece([thing], (half, half))


def floor_clutter(rng: Rng) -> Piece:
    """A bag, shoes, toys: what lies around."""
    kind, thing = rng.integers(5), SceneObject("floor clutter")
    if kind == 0:
        thing.sphere((0, 0, 0.2), (0.16, 0.12, 0.22), clothing(rng))
        thing.box((0, 0.11, 0.14), (0.1, 0.04, 0.08), clothing(rng))
    elif kind == 1:
        shoe = plain(rng)
        for side in (-1, 1):
            thing.sphere((side * 0.07, rng.uniform(-0.04, 0.04), 0.045), (0.045, 0.14, 0.045), shoe)
    elif kind == 2:
        return Piece(scatter(rng, 4, (0.3, 0.3), 0.0), (0.3, 0.3))
    elif kind == 3:  # a cable
        black, points = plain(rng, neutral(rng, 0.02)), rng.uniform(-0.3, 0.3, (6, 2))
        for (x0, y0), (x1, y1) in pairwise(points):
            thing.rod((x0, y0, 0.008), (x1, y1, 0.008), 0.007, black)
        return Piece([thing], (0.3, 0.3))
    else:
        return Piece([clutter(rng)], (0.16, 0.16))
    return Piece([thing], (0.18, 0.18))


def column(rng: Rng) -> Piece:
    """A pillar or a pipe from floor to (any) ceiling."""
    half, thing = rng.uniform(0.04, 0.3), SceneObject("column")
    material = patterned(rng, "concrete", neutral(rng, 0.6), 2.0)
    if rng.random() < 0.5:
        thing.box((0, 0, 2.0), (half, half, 2.0), material)
    else:
        thing.cylinder((0, 0, 2.0), half, 2.0, material)
    return Piece([thing], (half, half))


def flip_chart(rng: Rng) -> Piece:
    board, legs = SceneObject("flip chart"), metallic(rng)
    wide = rng.uniform(0.35, 0.8)
    board.box((0, 0, 1.35), (wide, 0.015, 0.45), full_picture(rng, "whiteboard"))
    for side in (-1, 1):
        board.rod((side * wide * 0.8, 0, 1.3), (side * wide, 0.25, 0.01), 0.014, legs)
        board.rod((side * wide * 0.8, 0, 1.3), (side * wide, -0.25, 0.01), 0.014, legs)
    return Piece([board], (wide, 0.27))


def television(rng: Rng) -> Piece:
    unit = SceneObject("television unit").box((0, 0, 0.22), (0.8, 0.2, 0.2), body_material(rng))
    return Piece([unit, monitor(rng, 0.42, scale=1.7)], (0.8, 0.22))


def partition(rng: Rng) -> Piece:
    """A free-standing screen between work places."""
    wide, half_height = rng.uniform(0.5, 1.2), rng.uniform(0.55, 0.9)
    thing = SceneObject("partition")
    thing.box((0, 0, half_height + 0.05), (wide, 0.025, half_height), upholstery(rng))
    for side in (-1, 1):
        thing.box((side * (wide - 0.1), 0, 0.02), (0.03, 0.22, 0.02), metallic(rng))
    return Piece([thing], (wide, 0.23))


def ladder(rng: Rng) -> Piece:
    """A step ladder, folded out."""
    thing, metal, tall = SceneObject("ladder"), metallic(rng), rng.uniform(0.9, 2.0)
    spread = 0.28 * tall
    for side in (-0.2, 0.2):
        thing.rod((side, spread, 0), (side * 0.7, 0, tall), 0.018, metal)
        thing.rod((side, -spread, 0), (side * 0.7, 0, tall), 0.014, metal)
    for step in np.arange(0.25, tall, 0.25):
        out = spread * (1 - step / tall)
        thing.box((0, out, step), (0.2 * (1 - 0.3 * step / tall), 0.04, 0.012), metal)
    return Piece([thing], (0.24, spread + 0.03))


def trolley(rng: Rng) -> Piece:
    """A cart with shelves on four wheels, with things on it."""
    thing, metal, dark = SceneObject("trolley"), metallic(rng), Material((0.05, 0.05, 0.05))
    x, y, tall = rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.28), rng.uniform(0.7, 0.95)
    levels = np.linspace(0.16, tall - 0.05, int(rng.integers(2, 4)))
    for level in levels:
        thing.box((0, 0, level), (x, y, 0.012), metal)
    for side in (-x, x):
        for end in (-y, y):
            thing.rod((side, end, 0.08), (side, end, tall), 0.012, metal)
            thing.rod((side, end - 0.015, 0.05), (side, end + 0.015, 0.05), 0.05, dark)
        thing.rod((side, -y, tall), (side, y, tall), 0.012, metal)
    things = scatter(rng, int(rng.integers(0, 5)), (x, y), float(levels[-1]) + 0.012)
    return Piece([thing, *things], (x + 0.03, y + 0.03))


def stairs(rng: Rng) -> Piece:
    """A few steps up to a landing, with a handrail."""
    thing, metal = SceneObject("stairs"), metallic(rng)
    stone = patterned(
        rng, str(rng.choice(["concrete", "terrazzo", "wood"])), neutral(rng, 0.4), 1.5
    )
    count, wide, tread, rise = int(rng.integers(3, 9)), rng.uniform(0.5, 0.8), 0.28, 0.17
    deep = count * tread / 2
    for step in range(count):
        back = -deep + tread * (count - step) / 2
        half = (wide, tread * (count - step) / 2, rise / 2)
        thing.box((0, back, rise * (step + 0.5)), half, stone)
    for side in (-wide + 0.03, wide - 0.03):
        for step in (0, count - 1):
            y, z = deep - tread * (step + 0.5), rise * (step + 1)
            thing.rod((side, y, z), (side, y, z + 0.9), 0.015, metal)
        low, high = deep - tread / 2, -deep + tread / 2
        thing.rod((side, low, rise + 0.9), (side, high, rise * count + 0.9), 0.02, metal)
    return Piece([thing], (wide, deep))


PIECES: dict[str, Callable[[Rng], Piece]] = {
    piece.__name__: piece
    for piece in (
        table, dining_chair, office_chair, desk, sofa, bed, bookshelf, cabinet, kitchen_counter,
        appliance, storage_rack, cartons, plant, floor_lamp, stand, waste_bin, floor_clutter,
        column, flip_chart, television, partition, ladder, trolley, stairs,
    )
}  # fmt: skip
