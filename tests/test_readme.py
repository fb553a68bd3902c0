"""What the README and the pages in docs/ show is run, built or found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from apml_plugin.cli import COMMANDS
from apml_plugin.registry import build_loss

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_of_your_own_code_runs() -> None:
    (code,) = (block for block in blocks("python") if "import torch" in block)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["loss"].item() > 0
    assert names["plan"].shape == (2, 2048, 4096)


def test_every_loss_line_builds() -> None:
    (grammar,) = (block for block in blocks("yaml") if "weighted sum" in block)
    forms = re.split(r"(?m)^(?=loss:)", grammar)[1:]
    assert len(forms) == 5
    for form in forms:
        build_loss(yaml.safe_load(form)["loss"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert f"apml {command}" in README


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not heading or re.search(rf"(?im)^#+ {heading.replace('-', '.')}", linked.read_text()), target
