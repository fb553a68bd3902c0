"""Builds the package: pure Python today; compiled ops will join here as ext_modules.

Everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["apml_plugin", "apml_plugin.*"]),
    include_package_data=True,
)
