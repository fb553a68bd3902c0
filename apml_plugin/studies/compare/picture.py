"""Pictures of a study: point density, final metrics with their spread, learning curves."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from apml_plugin import drawing
from apml_plugin.shapes import FAMILIES

from .study import COLUMNS, CURVES, Data, Results

if TYPE_CHECKING:
    from .report import Summary

SHOWN = 3
"""Shapes that are drawn: the first held-out one of this many families, always the same."""
PANELS = ("CD-L1", "EMD", "uniformity")


def overview(summary: Summary, results: Results, data: Data) -> bytes:
    """Point clouds of the first seed coloured by density, above the final metrics of all seeds. A PNG."""
    truth, labels = data.test[1].numpy(), list(summary)
    shapes = [k * max(1, len(data.names) // len(FAMILIES)) for k in range(SHOWN)]
    width = max(1.45 * (len(labels) + 1), 9)
    figure = drawing.new_figure(width, 1.5 * SHOWN + 4.0, layout="constrained")
    above, middle, below = figure.subfigures(3, 1, height_ratios=(1.5 * SHOWN + 0.4, 0.65, 3.0))
    axes = above.subplots(SHOWN, len(labels) + 1, squeeze=False)
    paint = drawing.spacing_paint(truth[shapes], figure, middle.add_axes((0.3, 0.72, 0.4, 0.2)))
    for row, k in zip(axes, shapes, strict=True):
        frame = drawing.frame_of(truth[k])
        row[0].set_ylabel(data.names[k].split()[0], fontsize=10)
        for axis, cloud in zip(row, [truth[k], *(results[label][0].pred[k] for label in labels)], strict=True):
            outside = drawing.scatter(axis, cloud, frame, paint.to_rgba(drawing.spacing(cloud)), size=6)
            if outside > len(cloud) // 10:
                note = f"{outside} of {len(cloud)} points\nbeyond the frame"
                axis.text(0.5, 0.5, note, transform=axis.transAxes, ha="center", va="center", fontsize=8)
    for axis, name in zip(axes[0], ("truth", *labels), strict=True):
        axis.set_title(_short(name), fontsize=10)
    for axis, name in zip(below.subplots(1, len(PANELS)), PANELS, strict=True):
        _panel(axis, name, summary, results)
    return _png(figure)


def _panel(axis: Any, name: str, summary: Summary, results: Results) -> None:
    """One metric: a row for each loss with its mean, its spread and the value of every seed."""
    labels = list(summary)
    ranked = sorted(labels, key=lambda label: summary[label][name].mean)
    means = [summary[label][name].mean for label in ranked]
    # A value far off must not squeeze the others into a line, so it becomes an arrow and a number.
    limit = means[0] + 4 * (float(np.median(means)) - means[0])
    for at, label in enumerate(ranked):
        value, colour = summary[label][name], _colour(labels, label)
        if len(means) > 2 and value.mean > limit:
            text, place = f"{value.text(name)} →", axis.get_yaxis_transform()
            axis.text(0.98, at, text, transform=place, ha="right", va="center", fontsize=8, color=colour)
            continue
        axis.errorbar(value.mean, at, xerr=value.spread or 0, fmt="o", color=colour, capsize=3, markersize=5)
        seeds = [result.values[name] for result in results[label]]
        axis.plot(seeds, [at] * len(seeds), "|", color=colour, alpha=0.6, markersize=9)
    axis.set_yticks(range(len(ranked)), [_short(label) for label in ranked], fontsize=9)
    axis.set_ylim(len(ranked) - 0.4, -0.6)
    axis.set_title(f"{name}{' x 1000' * bool(COLUMNS[name].unit)} (lower is better)", fontsize=10)
    axis.grid(axis="x", color="#dddddd")
    axis.tick_params(axis="x", labelsize=8)


def curves(summary: Summary, results: Results) -> bytes:
    """Metrics of held-out shapes over steps: the mean of the seeds, and the range between them. A PNG."""
    labels = list(summary)
    figure = drawing.new_figure(12, 4.6, layout="constrained")
    axes = figure.subplots(1, len(CURVES))
    for axis, name in zip(axes, CURVES, strict=True):
        for label in labels:
            steps = [look["step"] for look in results[label][0].curve][1:]
            values = np.array([[look[name] for look in result.curve[1:]] for result in results[label]])
            colour = _colour(labels, label)
            axis.plot(steps, values.mean(0), color=colour, label=_short(label), linewidth=1.6)
            axis.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
        axis.set(title=f"{name} x 1000 of held-out shapes", xlabel="step", yscale="log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="both", labelsize=8)
        axis.grid(color="#dddddd", which="both")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return _png(figure)


def _short(label: str) -> str:
    return "\n".join(textwrap.wrap(label, 18, break_long_words=True)[:3])


def _colour(labels: list[str], label: str) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10" if len(labels) <= 10 else "tab20"](labels.index(label) % 20)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, facecolor="white", format="png")
    return buffer.getvalue()
