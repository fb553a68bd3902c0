"""Our metrics beside those of a PoinTr-style host: `metrics: [EMD, DCD]` at the top of its YAML.

Such a host has a class with a table `ITEMS`, a row per metric, whose `eval_func` is text that it evaluates. Our rows
are added after the host's, so its numbers, their order and the choice of the best checkpoint stay the same. EMD is
computed on 1,024 points of each cloud.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from typing import Any

from ...errors import HostError, LossArgumentError


def add_metrics(config: Any) -> None:
    """Adds the metrics that a config names under `metrics:` to the host's table; nothing without that key.

    Names are those of the metrics of pairs in :data:`apml_plugin.metrics.METRICS`. Anything else than a list with at
    least one of them is ignored. A metric that the host has under the same name stays the host's. Raises
    LossArgumentError for a name that no metric has, HostError if the host has no such table.
    """
    names = wanted(config)
    if not names:
        return
    tables = _tables()
    if not tables:
        raise HostError(
            f"metrics: {', '.join(names)} cannot be added: when the YAML is read, no class with a table ITEMS of "
            "metrics (name, eval_func, init_value) is loaded. Remove metrics: from the YAML"
        )
    for table in tables:
        _extend(table, names)


def wanted(config: Any) -> list[str]:
    """The metrics of ours that a config names; none if the key is the host's. Raises LossArgumentError for a typo."""
    names = config.get("metrics") if isinstance(config, Mapping) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        return []
    from ...metrics import METRICS

    pairs = [name for name, metric in METRICS.items() if not metric.of_sets]
    close = {name: difflib.get_close_matches(name, pairs, n=1) for name in names}
    if not any(close.values()):
        return []
    for name in names:
        if name not in pairs:
            offer = f"; did you mean {close[name][0]!r}?" if close[name] else ""
            raise LossArgumentError(f"metrics: no metric is called {name!r} (there are {', '.join(pairs)}){offer}")
    return list(names)


def _tables() -> list[type]:
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if "site-packages" in file or "dist-packages" in file or not file:
            continue
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__ and _is_table(value):
                found.append(value)
    return found


def _is_table(cls: type) -> bool:
    items = vars(cls).get("ITEMS")
    rows = isinstance(items, list) and bool(items) and all(isinstance(item, dict) for item in items)
    return bool(rows) and all({"name", "eval_func", "init_value"} <= set(item) for item in items or [])


def _extend(table: Any, names: list[str]) -> None:
    from ...announce import announce
    from ...metrics import METRICS

    added = []
    for name in names:
        if any(item["name"] == name for item in table.ITEMS):
            continue
        better = METRICS[name].higher_is_better
        # The host skips rows whose eval_func holds 'emd' in small letters, but for a final test.
        method = f"_apml_{name.replace('-', '_').upper()}"
        setattr(table, method, staticmethod(_evaluator(name)))
        table.ITEMS.append(
            {
                "name": name,
                "enabled": True,
                "eval_func": f"cls.{method}",
                "is_greater_better": better,
                "init_value": 0 if better else 32767,
            }
        )
        added.append(name)
    if added:
        announce(f"[apml] {table.__name__} also measures {', '.join(added)}, after the host's own")


def _evaluator(name: str) -> Any:
    def evaluate(pred: Any, gt: Any) -> Any:
        """The mean over the batch of (B, N, 3) against (B, M, 3), 0-dim on gt's device."""
        from ...metrics import METRICS

        metric = METRICS[name]
        value = metric.function(pred.float(), gt.float(), **metric.options, **metric.in_reports)
        return metric.scaled(value.mean().to(gt.device))

    return evaluate
