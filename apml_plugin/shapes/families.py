"""Generated shapes: chairs, tables, lamps, airplanes and mugs, normalised as ShapeNet's are, and views of them.

y is up. Broad plates and thin legs, rods and handles are in every family, so that a loss that neglects thin
parts shows it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .solids import Array, Box, Cone, Ellipsoid, Solid, Torus, sample_surface

__all__ = ["FAMILIES", "camera", "make_shape", "visible_from"]

DENSE = 8192
"""Surface points of a shape, from which clouds and views are drawn."""


def chair(rng: np.random.Generator) -> list[Solid]:
    w, d, h = rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.1), rng.uniform(0.7, 1.0)
    thick, leg, back = rng.uniform(0.06, 0.12), rng.uniform(0.03, 0.06), rng.uniform(0.7, 1.3)
    lean = -rng.uniform(0, 0.25)
    parts: list[Solid] = [Box((0, h, 0), (w, thick, d))]
    for x in (-1, 1):
        for z in (-1, 1):
            foot = (x * (w / 2 - leg), 0.0, z * (d / 2 - leg))
            parts.append(Cone(foot, (foot[0], h, foot[2]), leg * 0.7, leg))
    if rng.uniform() < 0.5:
        parts.append(Box((0, h + back / 2, -d / 2), (w, back, 0.07), lean))
    else:  # a rail on rods
        top = np.array([0.0, back * np.cos(lean), back * np.sin(lean)])
        for rod in np.linspace(-0.4, 0.4, rng.integers(3, 6)) * w:
            parts.append(Cone((rod, h, -d / 2), (rod, h + top[1], -d / 2 + top[2]), 0.03, 0.03))
        parts.append(Box((0, h + top[1], -d / 2 + top[2]), (w, 0.22, 0.08), lean))
    if rng.uniform() < 0.4:
        for end in (-1, 1):
            side = end * w / 2
            parts.append(Box((side, h + 0.35, 0), (0.07, 0.06, d * 0.9)))
            parts.append(Cone((side, h, d / 3), (side, h + 0.35, d / 3), 0.03, 0.03))
    return parts


def table(rng: np.random.Generator) -> list[Solid]:
    w, d, h = rng.uniform(1.2, 2.0), rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.0)
    thick = rng.uniform(0.05, 0.1)
    if rng.uniform() < 0.3:  # round, on one foot
        r = w / 2
        return [
            Cone((0, h, 0), (0, h + thick, 0), r, r),
            Cone((0, 0.05, 0), (0, h, 0), 0.06, 0.06),
            Cone((0, 0, 0), (0, 0.06, 0), r * 0.5, r * 0.45),
        ]
    parts: list[Solid] = [Box((0, h, 0), (w, thick, d))]
    leg = rng.uniform(0.03, 0.06)
    for x in (-1, 1):
        for z in (-1, 1):
            parts.append(Box((x * (w / 2 - leg), h / 2, z * (d / 2 - leg)), (2 * leg, h, 2 * leg)))
    if rng.uniform() < 0.5:
        parts.append(Box((0, h * 0.3, 0), (w - 2 * leg, 0.04, 0.06)))
        for x in (-1, 1):
            parts.append(Box((x * (w / 2 - leg), h * 0.3, 0), (0.05, 0.04, d - 2 * leg)))
    return parts


def lamp(rng: np.random.Generator) -> list[Solid]:
    h, base, shade = rng.uniform(1.2, 1.8), rng.uniform(0.25, 0.4), rng.uniform(0.35, 0.55)
    tall, rod = rng.uniform(0.35, 0.6), rng.uniform(0.02, 0.035)
    parts: list[Solid] = [
        Cone((0, 0, 0), (0, 0.06, 0), base, base * 0.9),
        Cone((0, 0.05, 0), (0, h, 0), rod, rod),
        Cone((0, h - tall * 0.3, 0), (0, h + tall * 0.7, 0), shade, shade * rng.uniform(0.4, 0.9)),
    ]
    if rng.uniform() < 0.5:
        r = rng.uniform(0.1, 0.2)
        parts.append(Ellipsoid((0, 0.06 + r, 0), (r, r * rng.uniform(0.8, 1.2), r)))
    if rng.uniform() < 0.4:
        parts.append(Torus((0, 0.06, 0), (0, 1, 0), base, 0.03))
    return parts


def airplane(rng: np.random.Generator) -> list[Solid]:
    long, fat, span = rng.uniform(0.9, 1.1), rng.uniform(0.09, 0.14), rng.uniform(0.7, 1.1)
    sweep, chord = rng.uniform(-0.1, 0.35), rng.uniform(0.22, 0.34)
    parts: list[Solid] = [Ellipsoid((0, 0, 0), (fat, fat, long))]
    for x in (-1, 1):
        for t in np.linspace(0.1, 1, 6):  # a swept wing in six narrow boxes
            width = span / 5.2
            size = (width, 0.03, chord * (1.15 - 0.6 * t))
            parts.append(Box((x * t * span, -0.02, 0.1 - sweep * t * span), size))
        parts.append(Box((x * 0.19, 0.04, -long * 0.86), (0.36, 0.025, 0.14)))
        if rng.uniform() < 0.8:
            y, z, reach = -0.09, 0.2 - sweep * span * 0.4, span * 0.42
            parts.append(Cone((x * reach, y, z - 0.14), (x * reach, y, z + 0.14), 0.045, 0.06))
    parts.append(Box((0, 0.17, -long * 0.86), (0.025, 0.32, 0.18)))
    return parts


def mug(rng: np.random.Generator) -> list[Solid]:
    r, h, wall = rng.uniform(0.35, 0.5), rng.uniform(0.7, 1.1), 0.03
    parts: list[Solid] = [Cone((0, 0, 0), (0, 0.05, 0), r, r)]
    for a in np.linspace(0, 2 * np.pi, 48, endpoint=False):  # the wall as staves: hollow, the inside seen from above
        foot = (r * np.cos(a), 0.0, r * np.sin(a))
        parts.append(Cone(foot, (foot[0], h, foot[2]), wall, wall))
    ring, reach = h * rng.uniform(0.24, 0.36), r + 0.02
    half = np.pi / 2 * rng.uniform(0.95, 1.15)
    # The handle's frame: angle 0 of the arc points away from the mug.
    parts.append(_handle((reach, h * 0.5, 0), ring, rng.uniform(0.035, 0.055), half))
    return parts


def _handle(centre: tuple[float, float, float], major: float, minor: float, half: float) -> Torus:
    """A half ring in the xy plane that opens towards -x; where angle 0 lies follows from the solids' frame."""
    probe = Torus(centre, (0, 0, 1), major, 1e-9, (-1e-9, 1e-9)).sample(np.random.default_rng(0), 1)[0] - centre
    zero = float(np.arctan2(probe[1], probe[0]))
    return Torus(centre, (0, 0, 1), major, minor, (-half - zero, half - zero))


FAMILIES: dict[str, tuple[str, Callable[[np.random.Generator], list[Solid]]]] = {
    "airplane": ("02691156", airplane),
    "chair": ("03001627", chair),
    "lamp": ("03636649", lamp),
    "table": ("04379243", table),
    "mug": ("03797390", mug),
}
"""Name: (the ShapeNet taxonomy id, builder)."""


def make_shape(family: str, seed: int, n: int = DENSE) -> NDArray[np.float32]:
    """(n, 3) points uniform by area on a random member of a family; the same seed gives the same points.

    Normalised as ShapeNet's: the bounding box is centred at the origin and its diagonal is 1.
    """
    taxonomy, build = FAMILIES[family]
    rng = np.random.default_rng([int(taxonomy), seed])
    points = sample_surface(build(rng), rng, n)
    low, high = points.min(0), points.max(0)
    return ((points - (low + high) / 2) / np.linalg.norm(high - low)).astype(np.float32)


def camera(rng: np.random.Generator) -> Array:
    """(3,) direction to a camera: any side, 10 to 60 degrees above the horizon."""
    around, above = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(10, 60))
    return np.array([np.cos(above) * np.cos(around), np.sin(above), np.cos(above) * np.sin(around)])


def visible_from(points: NDArray[np.float32], direction: Array) -> NDArray[np.bool_]:
    """(n,) which points a far camera in ``direction`` (3,) sees: a depth buffer over square cells.

    A point is hidden if something in its cell is nearer to the camera by more than a cell and a half. Cells are
    as large as the cloud is sparse, so that a far side does not shine through.
    """
    back = np.asarray(direction, float) / np.linalg.norm(direction)
    side = np.cross(back, np.eye(3)[int(np.argmin(np.abs(back)))])
    side /= np.linalg.norm(side)
    cell = 2.2 / np.sqrt(len(points))
    flat = np.stack([points @ side, points @ np.cross(back, side)], 1)
    column = np.floor((flat - flat.min(0)) / cell).astype(np.int64)
    key = column[:, 0] * (column[:, 1].max() + 1) + column[:, 1]
    depth = points @ back
    nearest = np.full(key.max() + 1, -np.inf)
    np.maximum.at(nearest, key, depth)
    return depth > nearest[key] - 1.5 * cell
