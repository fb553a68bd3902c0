"""Generated data in MM-Fi's folder layout, in which the point cloud can be learned from the WiFi signal.

    python -m apml_plugin.studies.demo.mmfi FOLDER --subjects S01 S05 --actions A01 --step 5

A person made of ellipsoids walks to and fro and waves. The cloud samples its surface. The CSI of a subcarrier is the
sum of the paths from a transmitter over the body's parts to three antennas, at frequencies chosen for quick learning.
Nothing is measured.

    E01/S01/A01/lidar/frame001.bin     float64 x, y, z (x away from the sensor, never negative)
    E01/S01/A01/wifi-csi/frame001.mat  CSIamp, CSIphase: 3 antennas x 114 subcarriers x 10 time slices
    E01/S01/A01/depth/frame001.png     16 bit, millimetres
    E01/S01/A01/ground_truth.npy       (frames, 17, 3) body joints

A reader with `subsampling` 5 opens only frames 1, 6, 11 .. 296; with `step` 5 only these are written.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apml_plugin.arguments import counted

Array = NDArray[np.float64]

FRAMES = 297
ANTENNAS, SUBCARRIERS, SLICES = 3, 114, 10
JOINTS = 17
# Lower and wider than WiFi: a walk then spans a few wavelengths, and training does not take days.
_FREQUENCIES = np.linspace(0.2e9, 0.8e9, SUBCARRIERS)
_LIGHT = 299_792_458.0
# Both on the same side of the walk: from opposite sides, left and right would be indistinguishable.
_SENDER = np.array([0.0, -3.0, 0.2])
_RECEIVERS = np.array([[0.0, -1.0 + 0.2 * antenna, 0.2] for antenna in range(ANTENNAS)])


def write(
    root: Path,
    subjects: Iterable[str] = ("S01", "S05"),
    actions: Iterable[str] = ("A01",),
    *,
    frames: int = FRAMES,
    step: int = 1,
    points: tuple[int, int] = (700, 1400),
    seed: int = 0,
) -> int:
    """Write frames 1, 1 + step, .. up to `frames` of every subject and action below `root`; returns how many.

    points: how many each cloud has, drawn from this range, ends included. Subjects S01 to S40 lie in E01 to E04, ten
    each. Raises ValueError for a subject outside of these, OSError where it cannot write.
    """
    written = 0
    for subject in subjects:
        scene = scene_of(subject)
        for action in actions:
            folder = root / scene / subject / action
            rng = np.random.default_rng([seed, *subject.encode(), *action.encode()])
            walk = Walk.drawn(rng)
            for name in ("lidar", "wifi-csi", "depth"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            joints = np.stack([walk.joints(frame) for frame in range(frames)])
            np.save(folder / "ground_truth.npy", joints)
            for frame in range(0, frames, step):
                _write_frame(folder, walk, frame, int(rng.integers(points[0], points[1] + 1)), rng)
                written += 1
    return written


def scene_of(subject: str) -> str:
    """`E01` of `S01` .. `S10`, and so on. Raises ValueError for any other name."""
    number = int(subject[1:]) if subject[:1] == "S" and subject[1:].isdigit() else 0
    if not 1 <= number <= 40:
        raise ValueError(f"subject {subject!r}: MM-Fi has S01 to S40")
    return f"E{(number - 1) // 10 + 1:02d}"


@dataclass(frozen=True)
class Walk:
    """One person doing one action: sizes in metres, speeds in radians per frame."""

    height: float
    distance: float
    reach: float
    step: float
    wave: float
    phase: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Walk:
        return cls(*(float(rng.uniform(*bounds)) for bounds in _BOUNDS))

    def body(self, frame: float) -> tuple[Array, Array]:
        """Centres and half axes of the body's ellipsoids, both (8, 3), at a frame (fractions lie between)."""
        at = np.array([self.distance, self.reach * np.sin(self.step * frame + self.phase), 0.0])
        lift = 0.25 + 0.25 * np.sin(self.wave * frame)
        swing = 0.15 * np.sin(2 * self.step * frame)
        parts = [(part[:3], part[3:]) for part in _PARTS]
        centres = np.array([centre for centre, _ in parts])
        centres[2, 2] += lift  # one arm waves, the other hangs; the legs go past each other
        centres[4, 2] += 2 * lift
        centres[6:, 0] += swing, -swing
        return centres * self.height + at, np.array([axes for _, axes in parts]) * self.height

    def joints(self, frame: int) -> Array:
        """(17, 3): the centres, and points between them."""
        centres, _ = self.body(frame)
        return np.concatenate([centres, (centres + np.roll(centres, 1, axis=0)) / 2, centres[:1]])

    def cloud(self, frame: int, count: int, rng: np.random.Generator) -> Array:
        """(count, 3) points on the body's surface, with a lidar's noise of 5 mm."""
        centres, axes = self.body(frame)
        size = np.prod(axes, axis=1) ** (2 / 3)
        part = rng.choice(len(axes), size=count, p=size / size.sum())
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        points = centres[part] + direction * axes[part] + rng.normal(scale=0.005, size=(count, 3))
        points[:, 0] = np.abs(points[:, 0])
        return points

    def csi(self, frame: int, rng: np.random.Generator) -> NDArray[np.complex128]:
        """(3, 114, 10): the direct path, one path over each body part in each time slice, and noise."""
        direct = 0.5 * _path(np.linalg.norm(_RECEIVERS - _SENDER, axis=1))
        result = np.repeat(direct[:, :, None], SLICES, axis=2)
        for index in range(SLICES):
            centres, axes = self.body(frame + index / SLICES)
            way_in = np.linalg.norm(centres - _SENDER, axis=1)
            way_out = np.linalg.norm(centres - _RECEIVERS[:, None], axis=2)
            strength = 4 * np.prod(axes, axis=1) ** (2 / 3)
            result[:, :, index] += (_path(way_in + way_out) * strength[:, None]).sum(axis=1)
        noise = rng.normal(scale=0.002, size=(2, *result.shape))
        return result + noise[0] + 1j * noise[1]


_BOUNDS = ((1.0, 1.1), (2.6, 3.4), (0.5, 0.9), (0.05, 0.08), (0.1, 0.2), (0.0, 2 * np.pi))
# Centre and half axes, in metres: trunk, head, two upper arms, two forearms, two legs.
_PARTS = (
    (0.0, 0.0, 0.15, 0.12, 0.18, 0.32),
    (0.0, 0.0, 0.62, 0.10, 0.09, 0.13),
    (0.0, 0.28, 0.25, 0.06, 0.07, 0.16),
    (0.0, -0.28, 0.25, 0.06, 0.07, 0.16),
    (0.05, 0.36, -0.02, 0.05, 0.06, 0.15),
    (0.05, -0.36, -0.02, 0.05, 0.06, 0.15),
    (0.0, 0.10, -0.60, 0.08, 0.08, 0.45),
    (0.0, -0.10, -0.60, 0.08, 0.08, 0.45),
)


def _path(length: Array) -> NDArray[np.complex128]:
    """What arrives over paths of these lengths (...), by subcarrier (..., 114): the longer, the weaker."""
    length = length[..., None]
    return np.exp(-2j * np.pi * length * _FREQUENCIES / _LIGHT) / length


def _write_frame(folder: Path, walk: Walk, frame: int, count: int, rng: np.random.Generator) -> None:
    from PIL import Image
    from scipy.io import savemat

    name = f"frame{frame + 1:03d}"
    cloud = walk.cloud(frame, count, rng)
    (folder / "lidar" / f"{name}.bin").write_bytes(cloud.astype("<f8").tobytes())
    csi = walk.csi(frame, rng)
    savemat(folder / "wifi-csi" / f"{name}.mat", {"CSIamp": np.abs(csi), "CSIphase": np.angle(csi)})
    Image.fromarray(_depth(cloud)).save(folder / "depth" / f"{name}.png")


def _depth(cloud: Array, width: int = 64, height: int = 48) -> NDArray[np.uint16]:
    """A small picture of the cloud seen along x: the nearest point of each pixel in millimetres, 0 where none is."""
    column = ((0.5 - cloud[:, 1] / 4) * width).astype(int).clip(0, width - 1)
    row = ((0.5 - cloud[:, 2] / 3) * height).astype(int).clip(0, height - 1)
    picture = np.full((height, width), np.inf)
    np.minimum.at(picture, (row, column), cloud[:, 0] * 1000)
    return np.where(np.isfinite(picture), picture, 0).astype(np.uint16)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what a run's dataset_root: names")
    parser.add_argument("--subjects", nargs="+", default=["S01", "S05"])
    parser.add_argument("--actions", nargs="+", default=["A01"])
    parser.add_argument("--step", type=int, default=1, help="write every so many-th of the 297 frames only")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    count = write(given.folder, given.subjects, given.actions, step=given.step, seed=given.seed)
    print(f"{counted(count, 'frame')} written below {given.folder}")


if __name__ == "__main__":
    main()
