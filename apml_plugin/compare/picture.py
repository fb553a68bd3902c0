"""The study's pictures: point density, final metrics with spread, learning curves."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apml_plugin.demo.picture import NEIGHBOUR, _frame, spacing
from apml_plugin.studies.canvas import project

from .running import Results
from .study import COLUMNS, CURVES, Data

if TYPE_CHECKING:
    from .report import Summary

SHOWN = 3
"""Shapes that are drawn: the first held-out one of this many families, always the same."""
PANELS = ("CD-L1", "EMD", "uniformity")


def overview(summary: Summary, results: Results, data: Data) -> bytes:
    """Point clouds of the first seed coloured by density, above the final metrics of all seeds. A PNG."""
    plt = _pyplot()
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    truth = data.test[1].numpy()
    per_family = max(1, len(data.names) // 5)
    shapes = [k * per_family for k in range(5)][:SHOWN]
    usual = float(np.median(np.concatenate([spacing(truth[k]) for k in shapes])))
    norm = LogNorm(usual / 4, usual * 2.5)
    labels = list(summary)
    wide = 1.45 * (len(labels) + 1)
    figure = plt.figure(figsize=(max(wide, 9), 1.5 * len(shapes) + 4.0), layout="constrained")
    above, bar_place, below = figure.subfigures(3, 1, height_ratios=(1.5 * len(shapes) + 0.4, 0.55, 3.0))
    axes = above.subplots(len(shapes), len(labels) + 1, squeeze=False)
    for row, k in zip(axes, shapes, strict=True):
        frame = _frame(truth[k])
        _cloud(row[0], truth[k], frame, norm)
        row[0].set_ylabel(data.names[k].split()[0], fontsize=10)
        for axis, label in zip(row[1:], labels, strict=True):
            _cloud(axis, results[label][0].pred[k], frame, norm)
    for axis, name in zip(axes[0], ("truth", *labels), strict=True):
        axis.set_title(_short(name), fontsize=10)
    bar = bar_place.add_axes((0.3, 0.72, 0.4, 0.24))
    colours = figure.colorbar(ScalarMappable(norm, "turbo_r"), cax=bar, orientation="horizontal")
    colours.set_ticks([usual / 3, usual, usual * 2], labels=["⅓ (clumped)", "typical of the truth", "2 (thin)"])
    colours.minorticks_off()
    bar.tick_params(labelsize=8)
    bar_place.text(0.29, 0.84, f"distance to the {NEIGHBOUR}th neighbour", ha="right", va="center", fontsize=8)
    for axis, name in zip(below.subplots(1, len(PANELS)), PANELS, strict=True):
        ranked = sorted(labels, key=lambda label: summary[label][name].mean)
        means = [summary[label][name].mean for label in ranked]
        # One that is far off must not squeeze the others into a line: it becomes an arrow and a number.
        limit = means[0] + 4 * (float(np.median(means)) - means[0])
        for at, label in enumerate(ranked):
            value = summary[label][name]
            colour = _colour(labels, label)
            if len(means) > 2 and value.mean > limit:
                axis.text(
                    0.98, at, f"{value.text(name)} →", transform=axis.get_yaxis_transform(), ha="right", va="center",
                    fontsize=8, color=colour,
                )  # fmt: skip
                continue
            axis.errorbar(value.mean, at, xerr=value.spread or 0, fmt="o", color=colour, capsize=3, markersize=5)
            every = [result.values[name] for result in results[label]]
            axis.plot(every, [at] * len(every), "|", color=colour, alpha=0.6, markersize=9)
        axis.set_yticks(range(len(ranked)), [_short(label) for label in ranked], fontsize=9)
        axis.set_ylim(len(ranked) - 0.4, -0.6)
        scale = " x 1000" if COLUMNS[name][1] != 1 else ""
        axis.set_title(f"{name}{scale} (lower is better)", fontsize=10)
        axis.grid(axis="x", color="#dddddd")
        axis.tick_params(axis="x", labelsize=8)
    return _png(figure)


def curves(summary: Summary, results: Results) -> bytes:
    """Metrics of held-out shapes over steps: mean of the seeds, and from the least to the greatest of them. A PNG."""
    plt = _pyplot()
    labels = list(summary)
    figure, axes = plt.subplots(1, len(CURVES), figsize=(12, 4.6), layout="constrained")
    for axis, name in zip(axes, CURVES, strict=True):
        for label in labels:
            steps = [look["step"] for look in results[label][0].curve]
            every = np.array([[look[name] for look in result.curve] for result in results[label]])
            colour = _colour(labels, label)
            axis.plot(steps[1:], every.mean(0)[1:], color=colour, label=_short(label), linewidth=1.6)
            axis.fill_between(steps[1:], every.min(0)[1:], every.max(0)[1:], color=colour, alpha=0.12, linewidth=0)
        axis.set(title=f"{name} x 1000 of held-out shapes", xlabel="step", yscale="log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="both", labelsize=8)
        axis.grid(color="#dddddd", which="both")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return _png(figure)


def _cloud(axis: Any, cloud: NDArray[np.float32], frame: tuple[NDArray[np.float64], float], norm: Any) -> None:
    seen, gaps = project(cloud), spacing(cloud)
    order = np.argsort(seen[:, 2])  # near points over far ones
    (x, y), half = frame
    axis.scatter(seen[order, 0], seen[order, 1], c=gaps[order], s=6, cmap="turbo_r", norm=norm, linewidths=0)
    outside = int((np.abs(seen[:, :2] - (x, y)).max(1) > half).sum())
    if outside > len(cloud) // 10:
        note = f"{outside} of {len(cloud)} points\nbeyond the frame"
        axis.text(0.5, 0.5, note, transform=axis.transAxes, ha="center", va="center", fontsize=8, color="#666666")
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    axis.set_facecolor("#f4f4f6")
    for spine in axis.spines.values():
        spine.set_visible(False)


def _short(label: str) -> str:
    return "\n".join(textwrap.wrap(label, 18, break_long_words=True)[:3])


def _colour(labels: list[str], label: str) -> Any:
    at = labels.index(label)
    return _pyplot().get_cmap("tab10" if len(labels) <= 10 else "tab20")(at % 20)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt

    return plt


def _png(figure: Any) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, dpi=100, facecolor="white", format="png")
    _pyplot().close(figure)
    return held.getvalue()
