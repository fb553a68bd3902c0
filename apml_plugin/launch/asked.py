"""The loss a run asks for, looked at before it starts: a misspelt one is a line now, not a traceback later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apml_plugin.chosen import VARIABLE, parse
from apml_plugin.errors import ApmlError, HostError


def loss_of(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """(what trains, who asked for it), in words, as far as ``APML_LOSS`` or the YAML after ``--config`` tells.

    Both are empty where neither is there; who asked is empty where it is the host's own loss.

    Raises what building the loss raises; for a YAML's, HostError with the file's name. A YAML of a host that reads
    its `loss:` itself is none of our business.
    """
    if environ.get(VARIABLE, "").strip():
        from apml_plugin.registry import build_loss, describe

        text = describe(build_loss(parse(environ[VARIABLE])))
        return f"{text} ({VARIABLE})", f"{VARIABLE} (apml run --loss) asks for {text}"
    path = config_among(words)
    if path is None:
        return "", ""
    from apml_plugin.hosts.base import check_config, read_yaml

    try:
        config = read_yaml(path)
    except HostError:  # the script will say so in its own words
        return "", ""
    if all(part.get(key) is None for part in (config, _model(config)) for key in ("loss", "loss_opts")):
        return f"the host's own (no loss: in {path})", ""
    try:
        found = check_config(path, near=Path.cwd())  # a host is run from its own folder; its YAML may lie anywhere
    except ApmlError:
        return "", ""
    if found.host is None or (found.error and not _model(config) and "train_loader" not in config):
        return "", ""
    if found.error:
        raise HostError(f"{path}: {found.error}")
    if not found.stages:
        return f"the host's own ({found.found_at})" if found.found_at else "the host's own", ""
    stages = ", ".join(f"{stage}: {text}" for stage, text in found.stages.items())
    return f"{stages} ({found.found_at} in {path})", f"{found.found_at} in {path} asks for {stages}"


def config_among(words: Sequence[str]) -> Path | None:
    """The YAML that a script's arguments name after ``--config``, if it is there."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        path = Path(value if equals else following)
        if option == "--config" and path.suffix in (".yaml", ".yml") and path.is_file():
            return path
    return None


def _model(config: Mapping[str, Any]) -> Mapping[str, Any]:
    model = config.get("model")
    return model if isinstance(model, Mapping) else {}
