"""Solids with a surface to sample and an inside to test: the parts of generated shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Solid(Protocol):
    """A closed body. Coordinates are float64 (n, 3)."""

    @property
    def area(self) -> float: ...

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        """n points, uniform by area on the surface."""
        ...

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Which points lie strictly inside, by a margin of 1e-6."""
        ...


MARGIN = 1e-6


@dataclass(frozen=True)
class Box:
    """Axis-parallel, turned by ``tilt`` radians about the x axis through its centre."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    tilt: float = 0.0

    @property
    def area(self) -> float:
        a, b, c = self.size
        return 2 * (a * b + b * c + c * a)

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        a, b, c = self.size
        pair = np.array([b * c, c * a, a * b])
        axis = rng.choice(3, size=n, p=pair / pair.sum())
        points = rng.uniform(-0.5, 0.5, (n, 3))
        points[np.arange(n), axis] = rng.choice([-0.5, 0.5], size=n)
        return points * self.size @ _about_x(self.tilt).T + self.centre

    def contains(self, points: Array) -> NDArray[np.bool_]:
        local = (points - self.centre) @ _about_x(self.tilt)
        return np.all(np.abs(local) < np.array(self.size) / 2 - MARGIN, axis=1)


@dataclass(frozen=True)
class Cone:
    """From ``start`` to ``end`` with radii ``r0`` and ``r1`` there: a cylinder, a cone or a piece of one."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    r0: float
    r1: float

    @property
    def _length(self) -> float:
        return float(np.linalg.norm(np.subtract(self.end, self.start)))

    @property
    def _parts(self) -> Array:
        slant = np.hypot(self._length, self.r0 - self.r1)
        return np.pi * np.array([(self.r0 + self.r1) * slant, self.r0**2, self.r1**2])

    @property
    def area(self) -> float:
        return float(self._parts.sum())

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        part = rng.choice(3, size=n, p=self._parts / self.area)
        u = rng.uniform(size=n)
        # On the side the density of the height grows with the radius there: invert its integral.
        side = np.sqrt(self.r0**2 + u * (self.r1**2 - self.r0**2))
        span = self.r1 - self.r0
        along = (side - self.r0) / span if abs(span) > 1e-9 else u
        height = np.choose(part, [along, np.zeros(n), np.ones(n)])
        radius = np.choose(part, [side, self.r0 * np.sqrt(u), self.r1 * np.sqrt(u)])
        angle = rng.uniform(0, 2 * np.pi, n)
        e1, e2, axis = _frame(np.subtract(self.end, self.start))
        ring = np.cos(angle)[:, None] * e1 + np.sin(angle)[:, None] * e2
        return np.array(self.start) + height[:, None] * self._length * axis + radius[:, None] * ring

    def contains(self, points: Array) -> NDArray[np.bool_]:
        axis = _frame(np.subtract(self.end, self.start))[2]
        local = points - self.start
        along = local @ axis
        across = np.linalg.norm(local - along[:, None] * axis, axis=1)
        limit = self.r0 + (self.r1 - self.r0) * along / self._length
        return (along > MARGIN) & (along < self._length - MARGIN) & (across < limit - MARGIN)


@dataclass(frozen=True)
class Ellipsoid:
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    @property
    def area(self) -> float:
        """Thomsen's formula: within 1.1 % of the true area."""
        a, b, c = np.power(self.radii, 1.6075)
        return float(4 * np.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075))

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        radii = np.array(self.radii)
        kept: list[Array] = []
        while sum(map(len, kept)) < n:
            unit = rng.normal(size=(2 * n + 16, 3))
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            # Stretching the sphere enlarges the area near `unit` by |unit / radii|, up to a constant.
            stretch = np.linalg.norm(unit / radii, axis=1) * radii.min()
            kept.append(unit[rng.uniform(size=len(unit)) < stretch])
        return np.concatenate(kept)[:n] * radii + self.centre

    def contains(self, points: Array) -> NDArray[np.bool_]:
        return np.linalg.norm((points - self.centre) / self.radii, axis=1) < 1 - MARGIN


@dataclass(frozen=True)
class Torus:
    """A ring of radius ``major`` about ``axis``, ``minor`` thick; ``arc`` (from, to) radians leaves a handle."""

    centre: tuple[float, float, float]
    axis: tuple[float, float, float]
    major: float
    minor: float
    arc: tuple[float, float] = field(default=(0.0, 2 * np.pi))

    @property
    def area(self) -> float:
        return 2 * np.pi * self.major * self.minor * (self.arc[1] - self.arc[0])

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        kept: list[Array] = []
        while not kept or sum(map(len, kept)) < n:
            small = rng.uniform(0, 2 * np.pi, 2 * n + 16)
            # The outer half of the tube has more area than the inner half.
            share = (self.major + self.minor * np.cos(small)) / (self.major + self.minor)
            kept.append(small[rng.uniform(size=len(small)) < share])
        small = np.concatenate(kept)[:n]
        large = rng.uniform(*self.arc, n)
        e1, e2, axis = _frame(np.array(self.axis))
        ring = np.cos(large)[:, None] * e1 + np.sin(large)[:, None] * e2
        reach = (self.major + self.minor * np.cos(small))[:, None]
        return np.array(self.centre) + reach * ring + self.minor * np.sin(small)[:, None] * axis

    def contains(self, points: Array) -> NDArray[np.bool_]:
        e1, e2, axis = _frame(np.array(self.axis))
        local = points - self.centre
        x, y, z = local @ e1, local @ e2, local @ axis
        turned = np.mod(np.arctan2(y, x) - self.arc[0], 2 * np.pi) <= self.arc[1] - self.arc[0]
        return turned & (np.hypot(np.hypot(x, y) - self.major, z) < self.minor - MARGIN)


def sample_surface(solids: list[Solid], rng: np.random.Generator, n: int) -> Array:
    """(n, 3) points uniform by area on the outer surface: what lies inside another solid is left out."""
    areas = np.array([solid.area for solid in solids])
    kept: list[Array] = []
    while sum(map(len, kept)) < n:
        owner = np.repeat(np.arange(len(solids)), rng.multinomial(n, areas / areas.sum()))
        points = np.concatenate([solid.sample(rng, int((owner == i).sum())) for i, solid in enumerate(solids)])
        hidden = np.zeros(len(points), bool)
        for i, solid in enumerate(solids):
            hidden |= solid.contains(points) & (owner != i)
        kept.append(rng.permutation(points[~hidden]))
    return np.concatenate(kept)[:n]


def _about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _frame(axis: Array) -> tuple[Array, Array, Array]:
    """Two unit vectors across the axis and the unit axis: always the same three for the same axis."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    helper = np.eye(3)[int(np.argmin(np.abs(axis)))]
    e1 = np.cross(axis, helper)
    e1 /= np.linalg.norm(e1)
    return e1, np.cross(axis, e1), axis
