"""The import hook of a run: stand-ins, CPU mode, names that newer libraries dropped, and the loss.

One finder stands first in ``sys.meta_path``. It serves the stand-ins, changes a few libraries right after they have
run, and runs modules of projects with the lines of their recipes. Everything else is left to the other finders.
Standard library only, because every interpreter of a run imports this when it starts.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from apml_plugin import standins
from apml_plugin.announce import tell, warn
from apml_plugin.hosts import guard
from apml_plugin.launch import environment, old_hosts, recipes
from apml_plugin.standins import JUST_IN_TIME, STANDINS

CHANGED = {*old_hosts.TABLE, "torch", "pdb"}
"""Libraries that :meth:`Finder.change` changes."""

NEEDS = {**dict.fromkeys(STANDINS, ()), **{key: names for one in STANDINS.values() for key, names in one.needs.items()}}
"""The real modules whose errors are reported, and which of their names hosts need."""

_SAFE_LOADING = "apml_plugin.checkpoints.loading"
"""The module that makes torch.load safe. By name: launch and checkpoints do not depend on each other."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def install() -> None:
    """Installs the finder of this run. Does nothing outside of a run. Idempotent."""
    settings = environment.read(os.environ)
    if settings is None or any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    finder = Finder(settings)
    sys.meta_path.insert(0, finder)
    if settings.attach:
        sys.path_hooks.insert(0, recipes.Script)
    guard.carry()
    if settings.asked:
        guard.arm(settings.asked)
    for name in CHANGED & set(sys.modules):  # a .pth file may have imported torch before us
        finder.change(sys.modules[name])


class Finder:
    """The finder of a run. Python's import system calls its ``find_spec``."""

    def __init__(self, settings: environment.Settings) -> None:
        self.settings = settings

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self.settings.standins and not self._waits(name) and self._missing(name):
            return None if _asked_by_library(name) else self._standin(name)
        of_library = path is not None and all(map(recipes.is_library, path))
        if name in sys.builtin_module_names or (of_library and name not in NEEDS and name not in CHANGED):
            return None
        spec = self._ask_others(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        if name in CHANGED:
            _after(spec, self.change)
        elif self.settings.attach and spec.has_location and spec.origin and not recipes.is_library(spec.origin):
            recipes.into(spec)
        return spec

    def change(self, module: ModuleType) -> None:
        """Does to a library of :data:`CHANGED`, which has just run, what this run needs."""
        name = module.__name__
        if name == "torch":
            self._change_torch()
        elif name == "pdb" and self.settings.attach:
            recipes.into_pdb(module)
        try:
            old_hosts.prepare(name, module)
        except Exception as error:
            warn(f"{name} is left as it is ({type(error).__name__}: {error})")

    def _change_torch(self) -> None:
        # No error is caught here: a run must not go on with unsafe checkpoints, or without the guard.
        if os.environ.get(environment.TRUST):
            tell("trust", "checkpoints are trusted: torch.load runs what a file asks for, as PyTorch does")
        else:
            importlib.import_module(_SAFE_LOADING).install()
        guard.install()
        if self.settings.cpu:  # its own wrapper of torch.load goes around ours
            from apml_plugin.launch import cpu_mode

            cpu_mode.install()
            tell("cpu", f"CPU mode: .cuda() and device='cuda' mean the CPU ({self.settings.cpu})")

    def _waits(self, name: str) -> bool:
        """Whether a stand-in is held back because the host can still compile the real one."""
        return name in JUST_IN_TIME and not self.settings.cpu and old_hosts.may_compile(name)

    def _ask_others(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None:
                return _reporting(spec, name) if name in NEEDS else spec
        return None

    def _missing(self, name: str) -> bool:
        """Whether the real one is still missing: a host may have put more on sys.path since the run was planned."""
        spec = self._ask_others(name, None, None)
        if spec is None or spec.origin is None:  # nothing, or a folder that happens to have the name
            return True
        from apml_plugin.launch import probe  # with subprocess, which every start of an interpreter would pay for

        why = probe.look_again(name, self.settings.standins[name])
        if why:
            self.settings.standins[name] = why
        else:
            del self.settings.standins[name]
        os.environ[environment.STANDINS] = json.dumps(self.settings.standins)  # for the processes below
        return bool(why)

    def _standin(self, name: str) -> ModuleSpec:
        spec = standins.spec_of(name)
        message = f"{name}: {STANDINS[name].kind} ({self.settings.standins[name]})"

        def complete(module: ModuleType) -> None:
            standins.complete(module)
            for submodule in STANDINS[name].submodules:
                old_hosts.prepare(f"{name}.{submodule}", module)
            tell(name, message)

        # Announced when it is executed, not when somebody only asks whether it exists.
        _after(spec, complete)
        return spec


def _asked_by_library(name: str) -> bool:
    """Whether an installed library asks whether it may use a package, of which a stand-in has too few names for it."""
    frame, machinery = sys._getframe(2), os.path.dirname(importlib.__file__)
    while frame.f_back and frame.f_code.co_filename.startswith(("<frozen importlib", machinery)):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return not STANDINS[name].cuda and recipes.is_library(file) and not file.startswith(_PACKAGE)


def _after(spec: ModuleSpec, call: Callable[[ModuleType], None]) -> None:
    """Has ``call(module)`` run once the module's code has run.

    The method is shadowed on this one loader object, whose type stays what inspect and pkgutil expect.
    """
    loader = spec.loader
    run = getattr(loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module: ModuleType) -> None:
        run(module)
        call(module)

    try:
        loader.exec_module = exec_module  # type: ignore[method-assign, union-attr]
    except AttributeError:  # a loader that is a class or has slots: an extension's, never one of interest
        return


def _reporting(spec: ModuleSpec, name: str) -> ModuleSpec:
    """Has it reported where a real module lies that does not import, or lacks what hosts need; its error goes on."""

    def reporting(run: Callable[..., object]) -> Callable[..., object]:
        def call(given: object) -> object:
            try:
                result = run(given)
                lacks = [word for word in NEEDS[name] if given is not spec and not hasattr(given, word)]
                why = f"has no {lacks[0]}: is it another package of that name?" if lacks else ""
                return result
            except BaseException as error:
                why = f"does not import ({' '.join(f'{type(error).__name__}: {error}'.split())})."
                raise
            finally:
                if why:
                    remedy = "It is installed, so no stand-in takes its place: repair it or uninstall it"
                    tell(f"{name} is there", f"{name} at {spec.origin} {why} {remedy}")

        return call

    for method in ("create_module", "exec_module"):  # compiled modules fail in the first, others in the second
        if hasattr(spec.loader, method):
            setattr(spec.loader, method, reporting(getattr(spec.loader, method)))
    return spec
