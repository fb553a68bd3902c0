"""``apml doctor``: what this machine has, which backend will run and why; for a path, what host it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def doctor(
        path: Path | None = typer.Argument(
            None, metavar="PATH", help="Folder of a codebase, to see how it is recognised and whether it is patched."
        ),
    ) -> None:
        """Shows what is installed, and which backend is used.

        With PATH, it also shows how the codebase there is recognised. Exit code 1 if PATH is not recognised.
        """
        from apml_plugin.errors import HostError

        rows, code = [*_environment(), *_backends(), *_host_modules(path is not None)], 0
        if path:
            try:
                rows += _host(path)
            except HostError as error:
                rows, code = [*rows, ("host", str(error))], 1
        for what, text in rows:
            # Lines are not wrapped, so that paths can be copied.
            typer.echo(f"{what:<28} {text}")
        raise typer.Exit(code)


def _environment() -> list[tuple[str, str]]:
    import torch

    from apml_plugin import __version__
    from apml_plugin.arguments import counted

    cores, cuda = counted(os.cpu_count() or 1, "core"), "not available"
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        cuda = f"{torch.version.cuda}, {torch.cuda.device_count()} x {', '.join(sorted(names))}"
    elif torch.version.cuda:
        cuda = f"PyTorch is built for CUDA {torch.version.cuda}, but no GPU is usable here"
    else:
        cuda = "this PyTorch is a CPU build"
    rows = [
        ("apml-plugin", f"{__version__} at {Path(__file__).parents[1]}"),
        ("Python", f"{platform.python_version()} ({platform.system()} {platform.machine()}, {cores})"),
        ("PyTorch", f"{torch.__version__}, {counted(torch.get_num_threads(), 'thread')}"),
        ("CUDA", cuda),
        ("C++ compiler", _tool(os.environ.get("CXX", "c++"), "--version")),
        ("nvcc", _tool("nvcc", "--version")),
    ]
    for package in ("numpy", "scipy", "mmengine", "easydict", "geomloss"):
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def _tool(name: str, flag: str) -> str:
    path = shutil.which(name)
    if path is None:
        return "not found (only compiling the faster ops needs it)"
    lines = subprocess.run([path, flag], capture_output=True, text=True, check=False).stdout.strip().splitlines()
    release = [line for line in lines if "release" in line]
    return f"{path}: {(release or lines or ['?'])[-1 if release else 0].strip()}"


def _backends() -> list[tuple[str, str]]:
    import torch

    from apml_plugin.matching import backends

    rows: dict[tuple[str, str], list[str]] = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for n in (128, 2048, 16384):
            cloud = torch.empty(1, n, 3, device=device)
            choice = backends.choose("auto", cloud, cloud)
            rows.setdefault((device, f"{choice.name}: {choice.reason}"), []).append(str(n))
    chosen = [(f"backend on {device}", f"{text} ({', '.join(n)} points)") for (device, text), n in rows.items()]
    return [*chosen, ("compiled ops", compiled_ops())]


def compiled_ops() -> str:
    """Which ops were compiled, for what; or why there are none, and the one command that changes it."""
    import torch

    from apml_plugin.matching import extension

    problem = extension.loading_problem()
    record, rebuild = extension.read_record(), f"Build them with: {extension.rebuild_command()}"
    if record is None or problem:
        return f"none: {problem}"
    if "cuda" in record.ops:
        return f"CPU and CUDA ({record.architectures}), built for PyTorch {record.torch}"
    why = record.missing.get("cuda", "they were not asked for")
    text = f"CPU, built for PyTorch {record.torch}; none for CUDA: {why}"
    return f"{text}. {rebuild}" if torch.version.cuda else text


def _host_modules(all_of_them: bool) -> list[tuple[str, str]]:
    """The modules that hosts import: those that are installed but broken, or all of them."""
    from importlib.util import find_spec

    from apml_plugin.launch import environment, probe
    from apml_plugin.standins import STANDINS

    places: dict[str, str] = {}
    for name in STANDINS:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError) as error:
            places[name] = f"a place that cannot be searched ({error})"
        else:
            folders = spec.submodule_search_locations or [] if spec else []
            places[name] = (spec.origin or next(iter(folders), "?")) if spec else ""
    installed = [name for name, place in places.items() if place]
    # Another process imports them: some crash Python.
    broken = probe.look(os.getcwd(), environment.without_run(os.environ), installed).broken if installed else {}
    rows = [(name, f"broken: it is installed at {reason}") for name, reason in broken.items()]
    if all_of_them:
        rows += [(name, f"found at {place}") for name, place in places.items() if place and name not in broken]
        missing = [name for name, place in places.items() if not place]
        if missing:
            rows.append(("stand-ins of apml run", f"used for what is not installed: {', '.join(missing)}"))
    return rows


def _host(path: Path) -> list[tuple[str, str]]:
    from apml_plugin.errors import PatchError
    from apml_plugin.hosts.base import identify
    from apml_plugin.patching import check

    found = identify(path)
    rows = [("host", f"{found.kind} at {found.root}"), *found.described]
    rows += [("replaced in training", line) for line in found.replaced]
    rows += [("left alone", line) for line in found.refused]
    rows += [("broken in the host itself", line) for line in found.findings]
    try:
        patched = check(found.root, found.recipes)
    except PatchError as error:
        return [*rows, ("patched", str(error))]
    return [*rows, ("patched", ", ".join(patched) or "no: `loss:` is read only under `apml run`")]
