"""The loss that a run trains with: ``APML_LOSS`` (``apml run --loss``), else the one in the host's config.

Nothing here imports torch: patched files load this before the host has chosen its devices.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

VARIABLE = "APML_LOSS"
"""YAML text: ``APML`` or ``{NAME: APML, reduction: mean}``; anything `loss:` may say."""


def chosen_loss(config_value: Any = None, opts: Any = None) -> tuple[Any, Any, str]:
    """(value, opts, where) for `build_loss`: from ``APML_LOSS`` if it is set, else `config_value` and `opts`.

    where: "APML_LOSS", "the YAML", or "" if no loss is chosen (value is then None).
    Raises LossArgumentError if the variable is not valid YAML.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        return parse(text), None, VARIABLE
    if config_value is None:
        return None, opts, ""
    return config_value, opts, "the YAML"


@lru_cache(maxsize=8)
def parse(text: str) -> Any:
    """The value of a YAML text. Raises LossArgumentError if it is not valid YAML or names no loss."""
    from .errors import LossArgumentError
    from .files.yamls import load_yaml

    try:
        value = load_yaml(text, below="loss")
    except ValueError as error:
        raise LossArgumentError(
            f"{VARIABLE}={text!r} (apml run --loss) is not valid YAML: {error}; write APML, or with "
            "braces {NAME: APML, reduction: mean}"
        ) from None
    if value is None or isinstance(value, bool | int | float):
        raise LossArgumentError(f"{VARIABLE}={text!r} names no loss: write APML or {{NAME: APML, reduction: mean}}")
    return value
