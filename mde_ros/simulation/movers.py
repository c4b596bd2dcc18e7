"""People, balls, robots and cars: what moves. Each faces +x and stands at its own origin."""

import numpy as np

from mde_ros.simulation.materials import (
    clothing,
    metallic,
    plain,
    surface_material,
)
from mde_ros.simulation.shapes import Material, Piece, SceneObject
from mde_ros.simulation.textures import hsv

Rng = np.random.Generator


def person(rng: Rng, walking: bool = True) -> Piece:
    """A clothed person, facing +x, caught in mid-step or standing."""
    scale = rng.uniform(0.82, 1.08)
    legs, top = clothing(rng), clothing(rng)
    skin = Material(tuple(hsv(0.065, rng.uniform(0.3, 0.55), rng.uniform(0.3, 0.95))))
    hair = Material(
        tuple(hsv(rng.uniform(0.02, 0.12), rng.uniform(0, 0.6), rng.uniform(0.03, 0.5)))
    )
    shoes = plain(rng)
    body = SceneObject("person")
    stride = rng.uniform(0.1, 0.35) if walking else rng.uniform(-0.05, 0.05)
    for side in (-1, 1):
        step = side * stride
        hip = np.array([0, 0.09 * side, 0.9]) * scale
        knee = np.array([step * 0.55 + 0.04, 0.1 * side, 0.49]) * scale
        ankle = np.array([step * 0.9 - 0.05 * (step < 0), 0.1 * side, 0.09]) * scale
        body.rod(hip, knee, 0.082 * scale, legs).rod(knee, ankle, 0.06 * scale, legs)
        body.sphere(knee, 0.066 * scale, legs)
        body.box(ankle + [0.05, 0, -0.045 * scale], (0.13 * scale, 0.045, 0.04), shoes)
        shoulder = np.array([0, 0.19 * side, 1.4]) * scale
        bend = rng.uniform(0.0, 0.25) if rng.random() < 0.7 else 0.35
        elbow = np.array([-step * 0.35, 0.24 * side, 1.12]) * scale
        hand = elbow + np.array([-step * 0.3 + bend, -0.03 * side, -0.26 + bend * 0.6]) * scale
        body.rod(shoulder, elbow, 0.05 * scale, top).rod(elbow, hand, 0.04 * scale, top)
        body.sphere(shoulder, 0.065 * scale, top).sphere(hand, 0.05 * scale, skin)
    body.sphere((0, 0, 0.95 * scale), np.array([0.13, 0.17, 0.14]) * scale, legs)
    body.sphere((0, 0, 1.2 * scale), np.array([0.125, 0.18, 0.3]) * scale, top)
    body.sphere((0, 0, 1.36 * scale), np.array([0.11, 0.2, 0.13]) * scale, top)
    body.cylinder((0, 0, 1.5 * scale), 0.052 * scale, 0.06 * scale, skin)
    body.sphere((0.015, 0, 1.64 * scale), np.array([0.1, 0.078, 0.12]) * scale, skin)
    body.sphere((-0.015, 0, 1.67 * scale), np.array([0.103, 0.085, 0.11]) * scale, hair)
    if rng.random() < 0.25:
        body.sphere((-0.16, 0, 1.22 * scale), np.array([0.1, 0.15, 0.24]) * scale, clothing(rng))
    return Piece([body], (0.3, 0.3))


def ball(rng: Rng, radius: float) -> Piece:
    material = surface_material(rng)
    return Piece([SceneObject("ball").sphere((0, 0, radius), radius, material)], (radius, radius))


def small_robot(rng: Rng) -> Piece:
    """A round or boxy mobile base, facing +x."""
    robot, shell, dark = SceneObject("robot"), plain(rng), Material((0.05, 0.05, 0.05))
    half, kind = rng.uniform(0.14, 0.25), rng.integers(3)
    if kind == 0:  # a vacuum cleaner
        robot.cylinder((0, 0, 0.05), 0.17, 0.04, shell).cylinder((0, 0, 0.1), 0.04, 0.015, dark)
        return Piece([robot], (0.2, 0.2))
    for side in (-1, 1):
        robot.rod((0, side * half, 0.08), (0, side * (half + 0.04), 0.08), 0.08, dark)
    if kind == 1:  # a base with plates and a mast
        for z in (0.1, 0.25, 0.4):
            robot.cylinder((0, 0, z), half, 0.012, shell)
        robot.cylinder((0, 0, 0.5), 0.012, 0.4, metallic(rng))
        robot.box((0.03, 0, 0.9), (0.04, 0.1, 0.03), dark)
    else:  # a cart with a lid and a laser
        robot.box((0, 0, 0.22), (half * 1.4, half, 0.12), shell)
        robot.cylinder((half, 0, 0.38), 0.04, 0.035, dark)
    return Piece([robot], (half * 1.4, half + 0.05))


def car(rng: Rng) -> Piece:
    """A saloon, an estate, a van or a bus, its front at +x."""
    paint = hsv(rng.random(), rng.choice([0.03, 0.6], p=[0.65, 0.35]), rng.uniform(0.08, 0.95))
    body, glass = Material(tuple(paint), gloss=0.6), Material((0.07, 0.08, 0.1), gloss=0.8)
    black, silver = Material((0.03, 0.03, 0.035)), Material((0.7, 0.7, 0.72), gloss=0.5)
    kind = rng.choice(["saloon", "estate", "van", "bus"], p=[0.45, 0.3, 0.2, 0.05])
    length = {"saloon": 2.15, "estate": 2.2, "van": 2.6, "bus": 5.5}[kind] * rng.uniform(0.9, 1.08)
    wide = {"bus": 1.25, "van": 0.98}.get(kind, 0.88)
    vehicle = SceneObject("car")
    belt = 0.95 if kind != "bus" else 1.3
    sill = (0.25 + belt * 0.72) / 2  # doors and wings, then the bonnet's slope
    vehicle.box((0, 0, sill), (length, wide, sill - 0.25), body)
    vehicle.box((0, 0, belt * 0.86), (length, wide, belt * 0.14), body, top=(0.93, 0.94))
    roof = {"saloon": 1.43, "estate": 1.5, "van": 2.1, "bus": 3.0}[kind]
    back, front = {"saloon": (-0.72, 0.35), "estate": (-0.95, 0.35)}.get(kind, (-0.98, 0.9))
    middle, half = length * (front + back) / 2, length * (front - back) / 2
    tall = (roof - belt) / 2
    lean = {"saloon": 0.62, "estate": 0.78}.get(kind, 0.93)
    vehicle.box((middle, 0, belt + tall), (half, wide * 0.92, tall), glass, top=(lean, 0.82))
    vehicle.box((middle, 0, roof), (half * lean, wide * 0.76, 0.03), body, top=(0.9, 0.9))
    for x in np.linspace(
        middle - half * lean * 0.97, middle + half * lean * 0.97, 3 if kind != "bus" else 6
    ):
        vehicle.box((x, 0, belt + tall), (0.04, wide * 0.93, tall + 0.005), body, top=(1.0, 0.82))
    for end in (-1, 1):
        lamp = Material((1.0, 0.95, 0.85) if end > 0 else (0.6, 0.03, 0.03), emission=0.3)
        vehicle.box((end * length, 0, 0.42), (0.03, wide * 0.95, 0.12), black)
        for side in (-1, 1):
            vehicle.box((end * length, side * wide * 0.75, 0.72), (0.02, 0.14, 0.07), lamp)
            wheel = np.array([end * length * 0.63, side * (wide - 0.1), 0.33])
            vehicle.rod(wheel, wheel + [0, side * 0.13, 0], 0.33, black)
            vehicle.rod(wheel, wheel + [0, side * 0.14, 0], 0.2, silver)
    for side in (-1, 1):
        vehicle.box((length * 0.3, side * (wide + 0.1), belt + 0.08), (0.06, 0.09, 0.07), body)
    return Piece([vehicle], (length, wide))
