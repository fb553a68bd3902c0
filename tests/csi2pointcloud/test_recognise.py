"""The codebase is recognised by what it does; the lines that a patch inserts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apml_plugin.errors import HostError, PatchError
from apml_plugin.hosts.base import Clone, around
from apml_plugin.hosts.csi2pointcloud.kind import all_recipes, unreachable
from apml_plugin.hosts.csi2pointcloud.reading import recognise
from apml_plugin.patching import MARKER, check, plan_apply, plan_revert, write

TRAIN = "scripts/train.py"


def change(root: Path, file: str, old: str, new: str) -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))


def patch(root: Path) -> None:
    found = recognise(Clone(root).project)
    write(plan_apply(found.root, all_recipes(found), all_recipes(found)))


def test_names_read_from_a_script(host: Path) -> None:
    (script,) = recognise(Clone(host).project).scripts
    assert (script.file, script.main.name, script.config) == (TRAIN, "start", "settings")
    assert (script.yaml_path, script.root, script.epochs) == ("settings_file", "data_folder", "rounds")
    assert (script.loss, str(script.loss_class)) == ("criterion", "src/terms/terms.py: CloudLoss")
    assert (script.step.definition.name, script.step.loss) == ("fit", "criterion")
    assert (script.step.gt, script.step.epoch) == ("cloud", "epoch")
    assert script.model == {"width": 16, "points": 64, "num_encoder_layers": 2}
    assert script.dataset == {"every": 60, "points": 64}
    assert (script.loader, script.loader_key) == ({"is_training": False}, "validation_loader")
    assert unreachable(script) == ()
    found = around(host / "data" / "configurations" / "settings.yaml")
    assert found is not None
    assert found.detail == recognise(Clone(host).project)


def test_lines_go_behind_their_assignments_and_out_again(host: Path) -> None:
    before = (host / TRAIN).read_bytes()
    patch(host)
    patched = (host / TRAIN).read_text().splitlines()
    marked = [line.strip() for line in patched if line.endswith(MARKER)]
    assert marked == [
        f"{line}  {MARKER}"
        for line in (
            "from apml_plugin.hooks import csi2pointcloud",
            "csi2pointcloud.batch(criterion, cloud, epoch)",
            "settings_file = csi2pointcloud.config_file(settings_file)",
            "data_folder = csi2pointcloud.dataset_root(data_folder, settings)",
            "criterion = csi2pointcloud.loss(criterion, settings)",
            "rounds = csi2pointcloud.epochs(rounds, settings)",
        )
    ]
    batch = next(i for i, line in enumerate(patched) if "csi2pointcloud.batch" in line)
    assert "batch[" in patched[batch - 1]  # before anything is standardised
    # The patched script is recognised as it was, and a second patch changes nothing.
    found = recognise(Clone(host).project)
    assert check(found.root, all_recipes(found)) == (TRAIN,)
    assert not plan_apply(found.root, all_recipes(found), all_recipes(found)).differs
    write(plan_revert(found.root, all_recipes(found), all_recipes(found)))
    assert (host / TRAIN).read_bytes() == before


def test_half_patched_is_an_error(host: Path) -> None:
    patch(host)
    lines = (host / TRAIN).read_text().splitlines(keepends=True)
    (host / TRAIN).write_text("".join(line for line in lines if "csi2pointcloud.epochs" not in line))
    found = recognise(Clone(host).project)
    with pytest.raises(PatchError, match="half patched"):
        check(found.root, all_recipes(found))


def test_missing_names_are_left_out_and_reported(host: Path) -> None:
    change(host, TRAIN, "    rounds = 3\n", "    rounds = int(os.environ['ROUNDS'])\n")
    change(host, TRAIN, "optimizer, epoch):", "optimizer):")
    change(host, TRAIN, "optimizer=optimizer, epoch=epoch)", "optimizer=optimizer)")
    (script,) = recognise(Clone(host).project).scripts
    keys = unreachable(script)
    assert len(keys) == 2
    assert keys[0].startswith("epochs: is not read")
    assert keys[1].startswith("Schedule is an error: fit does not get")
    patch(host)
    assert "csi2pointcloud.batch(criterion, cloud)  " in (host / TRAIN).read_text()


def test_what_is_set_before_the_yaml_is_changed_after_it(host: Path) -> None:
    change(host, TRAIN, "    rounds = 3\n", "")
    change(host, TRAIN, "    settings_file = ", "    rounds = 3\n    settings_file = ")
    patch(host)
    lines = [line.strip() for line in (host / TRAIN).read_text().splitlines()]
    read = next(i for i, line in enumerate(lines) if line.startswith("settings = yaml.load"))
    assert {line.partition(" =")[0] for line in lines[read + 1 : read + 3]} == {"rounds", "data_folder"}


def test_two_training_scripts(host: Path) -> None:
    (host / "scripts" / "train_longer.py").write_text((host / TRAIN).read_text().replace("rounds = 3", "rounds = 30"))
    found = recognise(Clone(host).project)
    assert [script.file for script in found.scripts] == [TRAIN, "scripts/train_longer.py"]
    patch(host)
    assert check(found.root, all_recipes(found)) == (TRAIN, "scripts/train_longer.py")


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("src/terms/terms.py", "self.regularization_weight = ", "self.other = ", "no class with these two weights"),
        (TRAIN, "value.backward()", "step_back(value)", "Searched 6 Python files"),
        (TRAIN, "criterion=criterion,", "criterion=both_ways,", "passes it to no function of its own"),
        (TRAIN, "def fit(", "def fit((", "not valid Python"),
    ],
)
def test_other_structures_are_rejected(host: Path, file: str, old: str, new: str, why: str) -> None:
    change(host, file, old, new)
    with pytest.raises(HostError, match=why):
        recognise(Clone(host).project)


def test_not_a_folder_and_not_a_host(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is not a folder"):
        recognise(Clone(tmp_path / "x").project)
    with pytest.raises(HostError, match="training script: a function that loads a YAML"):
        recognise(Clone(tmp_path).project)


def test_a_patched_script_imports_no_torch_of_ours(host: Path) -> None:
    code = "import sys; from apml_plugin.hooks import csi2pointcloud; sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", code], cwd=host, env=env, check=False).returncode == 0
