"""`apml checkpoint`: look into a checkpoint, or make one that today's PyTorch loads, without running what is in it."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path

import typer

from apml_plugin.arguments import counted

Format = Enum("Format", {"torch": "torch", "safetensors": "safetensors"}, type=str)
Prefix = Enum("Prefix", {"keep": "keep", "strip": "strip", "add": "add"}, type=str)
Layout = Enum(
    "Layout",
    {
        "base_model": "base_model",
        "model": "model",
        "grnet": "grnet",
        "net_G": "net_G",
        "net_state_dict": "net_state_dict",
        "model_state_dict": "model_state_dict",
        "state_dict": "state_dict",
        "raw": "raw",
    },
    type=str,
)

_FILE = typer.Argument(..., metavar="FILE", help="A checkpoint (.pth, .pt, .ckpt, .safetensors).")


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Inspects and converts checkpoints. No code in them is run.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.add_typer(group, name="checkpoint")

    @group.command()
    def inspect(
        file: Path = _FILE,
        config: Path | None = typer.Option(
            None, "--config", help="Compare with the model that this YAML of the codebase describes."
        ),
        host: Path | None = typer.Option(
            None, "--host", help="Folder of the codebase. By default the one around --config."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
        keys: bool = typer.Option(False, "--keys", help="Print every key and shape."),
    ) -> None:
        """Shows what a checkpoint contains.

        These are its layout, epoch, metrics and weights; with --config also whether the model accepts it. Exit code 1:
        FILE cannot be read safely, or it does not fit the model.
        """
        from apml_plugin.checkpoints import report
        from apml_plugin.checkpoints.layouts import without_prefix
        from apml_plugin.checkpoints.reading import read_parts
        from apml_plugin.files.opening import printable

        contents, parts = read_parts(file)
        facts = report.report(file, contents, parts)
        fits = True
        if config is not None:
            facts["model"] = _compared(without_prefix(parts.weights), config, host)
            fits = facts["model"]["loads"]
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
        else:
            typer.echo("\n".join([*report.lines(facts, keys), *map(printable, _difference(facts.get("model")))]))
        raise typer.Exit(int(not fits))

    @group.command()
    def convert(
        file: Path = _FILE,
        out: Path = typer.Option(..., "--out", "-o", metavar="OUT", help="The file to write."),
        form: Format = typer.Option(Format("torch"), "--format", help="Format of OUT."),
        layout: Layout | None = typer.Option(
            None, "--layout", help="Key under which OUT holds the weights. By default as in FILE."
        ),
        prefix: Prefix | None = typer.Option(
            None,
            "--prefix",
            help="What to do with `module.` before keys. By default keep for torch, strip for safetensors.",
        ),
        force: bool = typer.Option(False, "--force", help="Overwrite OUT if it exists."),
    ) -> None:
        """Makes a checkpoint readable by today's torch.load.

        OUT needs no option of torch.load, or is in the safetensors format. Epoch, optimizer and metrics are kept as
        plain values. OUT is written completely or not at all.
        """
        from apml_plugin.checkpoints import writing
        from apml_plugin.checkpoints.reading import read_parts
        from apml_plugin.errors import CheckpointError
        from apml_plugin.files.opening import printable

        _, parts = read_parts(file)
        try:
            left = writing.convert(
                parts, out, form.value, layout and layout.value, prefix and prefix.value, force=force
            )
        except CheckpointError as error:
            text = str(error)
            raise CheckpointError(text if text.startswith(str(out)) else f"{file}: {text}") from None
        typer.echo(f"{out}: {counted(len(parts.weights), 'tensor')}, {form.value}")
        for line in left:
            typer.echo(printable(f"left out {line}"))


def _compared(weights, config: Path, host: Path | None) -> dict[str, object]:  # type: ignore[no-untyped-def]
    from apml_plugin.checkpoints.comparing import compare
    from apml_plugin.errors import CheckpointError

    try:
        found = compare(weights, config, host)
    except CheckpointError as error:
        return {"loads": False, "error": str(error)}
    return {
        "loads": found.loads,
        "name": found.model,
        "host": str(found.host),
        "matching": found.matching,
        "missing": list(found.missing),
        "unexpected": list(found.unexpected),
        "wrong_shape": [list(entry) for entry in found.wrong],
    }


def _difference(model) -> list[str]:  # type: ignore[no-untyped-def]
    if model is None:
        return []
    if "error" in model:
        return [f"{'model:':<12} {model['error']}"]
    if model["loads"]:
        return [
            f"{'model:':<12} {model['name']} of {model['host']} accepts it ({counted(model['matching'], 'tensor')})"
        ]
    fitting = counted(model["matching"], "tensor")
    lines = [f"{'model:':<12} {model['name']} of {model['host']} does not accept it ({fitting} would fit)"]
    lines += [f"  missing: {key}" for key in model["missing"]]
    lines += [f"  unexpected: {key}" for key in model["unexpected"]]
    return lines + [
        f"  wrong shape: {key} is {ours}, the model's {theirs}" for key, ours, theirs in model["wrong_shape"]
    ]
