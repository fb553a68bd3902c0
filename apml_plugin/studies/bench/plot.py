"""A report as a picture: seconds by size, both axes logarithmic, one line a loss."""

from __future__ import annotations

from pathlib import Path

from apml_plugin.errors import LossValueError
from apml_plugin.studies.bench.run import Report
from apml_plugin.studies.machine import describe


def draw(report: Report, path: Path) -> None:
    """Ours with full lines, peers dashed. Writes a PNG.

    Raises:
        LossValueError: nothing was timed, so there is nothing to draw.
    """
    done = [(case, case.both) for case in report.cases if case.both]
    if not done:
        raise LossValueError(f"--plot {path}: nothing was timed, there is nothing to draw")
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for name in dict.fromkeys(case.name for case, _ in done):
        line = sorted((case.points, took) for case, took in done if case.name == name)
        first = next(case for case, _ in done if case.name == name)
        ours = first.ours
        axis.plot(
            [points for points, _ in line],
            [took for _, took in line],
            "o-" if ours else "s--",
            linewidth=2.2 if ours else 1.4,
            markersize=6 if ours else 4,
            label=f"{name} (forward only)" if first.backward is None else name,
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    sizes = sorted({case.points for case, _ in done})
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set_xlabel("points in each cloud")
    axis.set_ylabel("seconds, forward + backward")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    o = report.options
    what = f"{o['cloud']} clouds, B = {o['batch']}, {o['dtype']}, {o['device']}, medians of {o['repeats']}"
    hardware = describe(report.machine)[0 if o["device"] == "cpu" else 1].split(":", 1)[1].split(", load")[0].strip()
    axis.set_title(f"{what}\n{hardware}", fontsize=10)
    figure.savefig(path, dpi=120, facecolor="white", format="png")
    plt.close(figure)
