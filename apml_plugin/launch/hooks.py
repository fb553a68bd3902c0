"""The import hooks of a run: stand-ins, CPU mode, names that newer libraries dropped, and the loss.

One finder stands first in ``sys.meta_path``. It serves the stand-ins. It looks at a few libraries right after they ran:
``torch``, for CPU mode, and those in :data:`CARE`. It runs modules of projects with the lines of their recipes
(:mod:`.recipes`). Everything else is left to the finders that were there. Standard library only.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from apml_plugin.announce import tell, warn
from apml_plugin.hosts import guard
from apml_plugin.launch import dropped, environment, just_in_time, recipes
from apml_plugin.standins import JUST_IN_TIME, STANDINS

CARE = {**dict.fromkeys(dropped.TABLE, "dropped"), "torch.utils.cpp_extension": "just_in_time"}
"""Libraries that are made to suit old hosts, each by ``prepare(module)`` of a module of :mod:`apml_plugin.launch`."""

NEEDS = {**dict.fromkeys(STANDINS, ()), **{key: words for one in STANDINS.values() for key, words in one.needs.items()}}
"""The real modules of which it is said when they do not import, and what hosts need of each."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def install() -> None:
    """Puts the hooks of this run in place; nothing outside a run, nothing twice."""
    settings = environment.read(os.environ)
    if settings is None or any(isinstance(finder, Hooks) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, Hooks(settings))
    if settings.attach:
        sys.path_hooks.insert(0, recipes.Script)
    guard.mark(guard.CARRIED)
    if settings.asked:
        guard.arm(settings.asked)
    if "LOCAL_RANK" in os.environ:
        from apml_plugin.launch import local_rank

        local_rank.install()
    for name in CARE:
        if name in sys.modules:
            _prepare(CARE[name], sys.modules[name])
    if "torch" in sys.modules:  # a .pth file can have imported it before us
        _loading(sys.modules["torch"])
        guard.install()
        if settings.cpu:
            _cpu_mode(sys.modules["torch"], settings.cpu)


class Hooks:
    """The finder. ``find_spec`` is what Python's import system calls."""

    def __init__(self, settings: environment.Settings) -> None:
        self.settings = settings

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self.settings.standins and not self._waits(name) and self._missing(name):
            return None if _asked_by_library(name) else self._standin(name)
        if name in CARE:
            spec = self._ask_others(name, path, target)
            if spec is not None:
                _after(spec, lambda module: _prepare(CARE[name], module))
            return spec
        library = path is not None and all(map(recipes.is_library, path))
        if name in sys.builtin_module_names or (library and name not in NEEDS):
            return None
        spec = self._ask_others(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        if name == "torch":
            _after(spec, _loading)
            _after(spec, lambda module: guard.install())
            reason = self.settings.cpu
            if reason:  # its own wrapper of torch.load goes around ours
                _after(spec, lambda module: _cpu_mode(module, reason))
        elif self.settings.attach and spec.has_location and spec.origin and not recipes.is_library(spec.origin):
            recipes.into(spec)
        return spec

    def _waits(self, name: str) -> bool:
        """Whether a stand-in is held back because the host can still compile the real one."""
        return name in JUST_IN_TIME and not self.settings.cpu and just_in_time.may_work(name)

    def _ask_others(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None:
                return _or_told(spec, name) if name in NEEDS else spec
        return None

    def _missing(self, name: str) -> bool:
        """Whether the real one is still missing: a host may have put more on sys.path since it was looked for."""
        spec = self._ask_others(name, None, None)
        if spec is None or spec.origin is None:  # nothing, or a folder that merely has the name
            return True
        from apml_plugin.launch import probe

        why = probe.found_since(name, self.settings.standins[name])
        if why:
            self.settings.standins[name] = why
        else:
            del self.settings.standins[name]
        os.environ[environment.STANDINS] = json.dumps(self.settings.standins)  # for the processes below
        return bool(why)

    def _standin(self, name: str) -> ModuleSpec | None:
        base = os.path.join(_PACKAGE, "standins", name)
        package = os.path.isdir(base)
        file = os.path.join(base, "__init__.py") if package else base + ".py"
        folders = [base] if package else None
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
        if spec is not None:
            text = f"{name}: {STANDINS[name].kind} ({self.settings.standins[name]})"
            # Announced when it is executed, not when somebody only asks whether it exists.
            _after(spec, lambda module: tell(name, text))
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


def _or_told(spec: ModuleSpec, name: str) -> ModuleSpec:
    """Has it said where a real module lies that does not import, or is not what hosts need; its error goes on."""

    def telling(run: Callable[..., object]) -> Callable[..., object]:
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
                    remedy = "It is there, so no stand-in takes its place: repair it or uninstall it"
                    tell(f"{name} is there", f"{name} at {spec.origin} {why} {remedy}")

        return call

    for method in ("create_module", "exec_module"):  # compiled modules fail in the first, others in the second
        if hasattr(spec.loader, method):
            setattr(spec.loader, method, telling(getattr(spec.loader, method)))
    return spec


def _loading(torch: ModuleType) -> None:
    """Safe checkpoints. Not reading them safely is no way to go on, so what fails here stops the run."""
    if os.environ.get(environment.TRUST):
        tell("trust", "checkpoints are trusted: torch.load runs what a file asks for, as PyTorch does")
        return
    from apml_plugin.checkpoints import loading

    loading.install()


def _cpu_mode(torch: ModuleType, reason: str) -> None:
    from apml_plugin.launch import cpu_mode

    cpu_mode.install()
    tell("cpu", f"CPU mode: .cuda() and device='cuda' mean the CPU ({reason})")


def _prepare(how: str, module: ModuleType) -> None:
    try:
        importlib.import_module(f"apml_plugin.launch.{how}").prepare(module)
    except Exception as error:
        warn(f"{module.__name__} is left as it is ({type(error).__name__}: {error})")
