"""What patches/csi2pointcloud.py runs: patch, revert, check, explain, and the measuring of a checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def script(description: str | None) -> int:
    """The command line of patches/csi2pointcloud.py; returns the exit code."""
    from apml_plugin.errors import ApmlError
    from apml_plugin.hosts.base import Clone
    from apml_plugin.hosts.csi2pointcloud.reading import recognise

    from .patch import Mode, run

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="PATH", help="the root of the clone")
    parser.add_argument("--revert", action="store_true", help="take the patch out again")
    parser.add_argument("--check", action="store_true", help="only say whether it is patched")
    parser.add_argument("--diff", action="store_true", help="show the diff, write nothing")
    parser.add_argument("--explain", action="store_true", help="say what is edited and what is broken, write nothing")
    parser.add_argument("--evaluate", type=Path, metavar="CHECKPOINT", help="measure a checkpoint on validation data")
    parser.add_argument("--config", type=Path, metavar="YAML", help="with --evaluate: split, loader and dataset_root")
    given = parser.parse_args()
    if (given.evaluate is None) != (given.config is None):
        parser.error("--evaluate CHECKPOINT and --config YAML go together")
    modes = ((given.explain, Mode.EXPLAIN), (given.check, Mode.CHECK), (given.diff, Mode.SHOW), (True, Mode.WRITE))
    try:
        host = recognise(Clone(given.path).project)  # another kind of host is refused here
        if given.evaluate is not None:
            return _evaluate(host, given.evaluate, given.config)
        return run(host.root, [], revert=given.revert, mode=next(mode for wanted, mode in modes if wanted))
    except ApmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _evaluate(host, checkpoint: Path, config: Path) -> int:  # type: ignore[no-untyped-def]
    from apml_plugin.studies.evaluate.csi2pointcloud import evaluate

    result = evaluate(host, checkpoint, config)
    epoch = f", epoch {result.epoch}" if result.epoch is not None else ""
    print(f"{result.checkpoint}{epoch}: {result.frames} validation frames, standardised coordinates")
    for name, value in result.values.items():
        print(f"  {name + ':':<22} {value:.4f}")
    return 0
