"""Seconds per iteration and the loss before and after, for every model of a real PoinTr clone at its published size.

    APML_POINTR=path-of-a-clone python tests/hosts/measure_pointr.py [MODEL ...] [--loss YAML]

Each model trains with its YAML of configs/pointr (--loss puts another loss there) through the host's main.py under
`apml run`: a few steps on one and the same batch, 2,048 points in and 16,384 of ground truth. Only the batch is smaller
than published; SnowFlakeNet's warm-up, 200 iterations long, is cut to one. Nothing needs compiling.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hosts.real_pointr import MODELS, ROOT, copy_clone, pcn_data, train

BATCH = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--loss", default="", help="YAML text in place of the config's loss; null: the host's own")
    parser.add_argument("--iterations", type=int, default=11, help="an epoch each, of one batch; 11 if not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = copy_clone(Path(folder) / "PoinTr")
        dataset = pcn_data(Path(folder) / "data", points=16384, train=BATCH, views=1)
        print("model        s / iteration  loss before  after  (sparse + dense)", file=sys.stderr)
        for model in asked.models:
            losses, seconds = measure(clone, dataset, Path(folder) / "configs", model, asked.loss, asked.iterations)
            first, last = (f"{sum(pair) / 1000:.4g}" for pair in (losses[0], losses[-1]))
            # The first iteration also loads and warms up.
            print(f"{model:<13}{statistics.median(seconds[1:]):>13.2f}{first:>13}{last:>7}", file=sys.stderr)


def measure(
    clone: Path, dataset: Path, folder: Path, model: str, loss: str, iterations: int
) -> tuple[list[tuple[float, float]], list[float]]:
    """Sparse and dense loss x 1000, and the seconds, of each iteration."""
    config = yaml.safe_load((ROOT / "configs" / "pointr" / f"{model.lower()}.yaml").read_text())
    if loss:
        config["loss"] = yaml.safe_load(loss)
    if "kwargs_2" in config["scheduler"]:
        config["scheduler"]["kwargs_2"]["total_epoch"] = 1
    for part in config["dataset"].values():
        part["_base_"] = str(dataset)
    config.update(total_bs=BATCH, max_epoch=iterations - 1)
    folder.mkdir(exist_ok=True)
    path = folder / f"{model}.yaml"
    path.write_text(yaml.safe_dump(config))
    output = train(clone, path, "measured", "--val_freq", "1000")
    found = re.findall(r"\[Training\] EPOCH: \d+ EpochTime = ([\d.]+) .*Losses = \['([\d.]+)', '([\d.]+)'\]", output)
    return [(float(sparse), float(dense)) for _, sparse, dense in found], [float(row[0]) for row in found]


if __name__ == "__main__":
    main()
