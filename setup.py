"""Builds the package: Python everywhere, and ``apml_plugin._C`` from cuda_ext/ where the machine can compile it.

``APML_BUILD`` says what is wanted: ``auto`` (CPU ops where a C++ compiler works, CUDA ops where nvcc and a CUDA
build of PyTorch are; what is missing or does not compile is left out, with the reason), ``cpu`` (CPU ops alone) or
``cuda`` (both), an error where that cannot be had, or ``off``. ``apml doctor`` reads what was built and why from
``apml_plugin/_build.json``. Everything else is in pyproject.toml.
"""

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup

from distutils.command.install_headers import install_headers  # isort: skip (setuptools brings it)

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "cuda_ext"))

from build_ops import build_ext_class, build_py_class, extension  # noqa: E402
from decide import decide, look  # noqa: E402

START = (
    'import os; "APML_RUN_STANDINS" in os.environ and __import__("apml_plugin.launch.start").launch.start.install()\n'
)
"""A line that every Python of the environment runs when it starts, and that does nothing outside of `apml run`. There
it makes sure of the plugin where a script resets PYTHONPATH or starts `python -E`."""


class InstallStart(install_headers):
    """Puts the line beside the package; an editable install gets it, too."""

    def run(self) -> None:
        folder = self.get_finalized_command("install").install_lib
        self.mkpath(folder)
        self.outfiles = [os.path.join(folder, "apml_plugin_run.pth")]
        Path(self.outfiles[0]).write_text(START)


BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}


def native() -> dict[str, Any]:
    """The arguments of setup() that build the ops; none for commands that build nothing."""
    if BUILDING.isdisjoint(sys.argv):
        return {"cmdclass": {"install_headers": InstallStart}}
    wish, found = os.environ.get("APML_BUILD") or "auto", look()
    decision = decide(wish, found)
    print(f"[apml-plugin] {decision}", file=sys.stderr)
    commands: dict[str, type] = {"build_py": build_py_class(decision, found), "install_headers": InstallStart}
    if not decision.ops:
        return {"cmdclass": commands}
    return {
        "cmdclass": {**commands, "build_ext": build_ext_class(wish, decision, found)},
        "ext_modules": [extension(decision)],
    }


setup(
    packages=find_packages(include=["apml_plugin", "apml_plugin.*"]),
    package_dir={"": "."},  # an editable install is then a plain path, which mypy and editors can follow
    include_package_data=True,
    headers=["none"],  # the one command that wheels and editable installs both run, and only with an entry
    **native(),
)
