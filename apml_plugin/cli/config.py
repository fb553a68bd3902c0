"""`apml config`: a ready YAML derived from a host's own."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from apml_plugin.hosts.base import Finding, Host

_YAML = typer.Argument(..., metavar="HOST_YAML", help="A YAML of PoinTr, of a fork of it, or of CSI2PointCloud.")
_LOSS = typer.Option("APML", "--loss", metavar="TEXT", help="The loss, as YAML: APML or '{NAME: APML, p_min: 0.9}'.")
_FINETUNE = typer.Option(
    None,
    "--finetune",
    metavar="CKPT",
    help="For a start from this checkpoint: a tenth of the learning rate, 30 epochs.",
)
_OUTPUT = typer.Option(
    None, "--output", "-o", metavar="FILE", help="The file to write. By default the YAML is printed."
)
_HOST = typer.Option(
    None, "--host", help="Folder of the codebase. By default the one around HOST_YAML or the current folder."
)
_FORCE = typer.Option(False, "--force", help="Overwrite FILE if it exists.")


def register(app: typer.Typer) -> None:
    @app.command()
    def config(
        host_yaml: Path = _YAML,
        loss: str = _LOSS,
        finetune: Path | None = _FINETUNE,
        output: Path | None = _OUTPUT,
        host: Path | None = _HOST,
        force: bool = _FORCE,
    ) -> None:
        """Makes a copy of HOST_YAML that trains with another loss.

        Comments and the order of keys are kept. `loss:` is put where the codebase reads it. APML gets `reduction:
        mean`, which has Chamfer's scale, unless --loss names a reduction. With `reduction: sum`, `grad_norm_clip:` is
        scaled to match. HOST_YAML itself is not changed. Exit code 1: nothing was written.
        """
        from apml_plugin.errors import ApmlError, HostError
        from apml_plugin.files.opening import read_regular, why
        from apml_plugin.files.writing import check_target, write_whole
        from apml_plugin.files.yamls import MOST_BYTES, load_yaml
        from apml_plugin.hosts.base import host_of
        from apml_plugin.hosts.derived_config import derive, with_header

        try:
            target = check_target(output, force) if output is not None else None
        except OSError as error:
            raise HostError(f"{output}: {error.strerror}") from None
        try:
            wanted = load_yaml(loss, below="loss")
        except ValueError as error:
            raise HostError(f"--loss {loss!r} is not valid YAML: {error}") from None
        if finetune is not None:
            _check_checkpoint(finetune)
        clone = host_of(host, host_yaml)
        try:
            text = read_regular(host_yaml.expanduser(), MOST_BYTES).decode("utf-8-sig")
            derived = derive(text, wanted, finetune is not None, clone)
        except OSError as error:
            raise HostError(f"{host_yaml}: {why(error)}") from None
        except (ApmlError, ValueError) as error:
            raise HostError(f"{host_yaml}: {error}") from None
        finding = _checked(derived.text, clone)
        text = with_header(derived, str(host_yaml), *_start(finding, target, finetune))
        for warning in [*derived.warnings, *finding.warnings]:
            print(f"warning: {warning}", file=sys.stderr)
        if target is None:
            sys.stdout.write(text)
            return
        try:
            write_whole(target, lambda file: file.write(text.encode()), force)
        except OSError as error:
            raise HostError(f"{output}: could not be written ({error.strerror}); nothing was left behind") from None
        for line in text.split("\n\n")[0].splitlines():
            print(line.removeprefix("# "))


def _check_checkpoint(path: Path) -> None:
    """Raises CheckpointError if the file holds no weights that can be read safely."""
    from apml_plugin.checkpoints.reading import read_parts

    if read_parts(path)[0].kept:
        print(
            f"warning: {path} is an old checkpoint, which plain `python` cannot load with PyTorch 2.6 or later: "
            "start with `apml run`, or convert it with `apml checkpoint convert`",
            file=sys.stderr,
        )


def _checked(text: str, clone: Host | None) -> Finding:
    """What `apml check` finds for the derived YAML. Raises HostError if a run with it would stop."""
    from apml_plugin.errors import HostError
    from apml_plugin.hosts.base import check_config

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "derived.yaml"
        file.write_text(text, encoding="utf-8")
        finding = check_config(file, clone.root if clone else None)
    if finding.error:
        raise HostError(f"a run with the derived YAML would stop: {finding.error}")
    return finding


def _start(finding: Finding, target: Path | None, checkpoint: Path | None) -> tuple[str, str]:
    """Where to start the training, and the command."""
    root = finding.host.root if finding.host else None
    scripts = getattr(finding.host.detail, "scripts", ()) if finding.host else ()
    if finding.model == "CSI2PointCloud" or scripts:
        script = Path(scripts[0].file if scripts else "scripts/train_model.py")
        folder = root / script.parent if root else None
        return "from the script's folder", f"APML_CONFIG={_path(target, folder)} apml run {script.name}"
    command = ["apml", "run", "main.py", "--config", _path(target, root)]
    if checkpoint is not None:
        command += ["--start_ckpts", _path(checkpoint, root)]
    return "from the clone's root", shlex.join([*command, "--exp_name", target.stem if target else "NAME"])


def _path(path: Path | None, folder: Path | None) -> str:
    """A path as seen from `folder`: relative if it lies below, else absolute."""
    if path is None:
        return "THIS_FILE"
    real = Path(os.path.abspath(path.expanduser()))
    return os.path.relpath(real, folder) if folder and real.is_relative_to(folder) else str(real)
