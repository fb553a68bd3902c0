"""Import-only stand-ins: every function exists and says what is missing, for whom, and what to do."""

from __future__ import annotations

import importlib

import pytest

from apml_plugin.standins import IMPORT_ONLY, PACKAGES, PROBES

FUNCTIONS = {
    "emd": ("forward", "backward"),
    "gridding": ("forward", "backward", "rev_forward", "rev_backward"),
    "gridding_distance": ("forward", "backward"),
    "cubic_feature_sampling": ("forward", "backward"),
}


@pytest.mark.parametrize("name", IMPORT_ONLY)
def test_calls_raise_a_clear_error(name):
    module = importlib.import_module(f"apml_plugin.standins.{name}")
    for function in FUNCTIONS[name]:
        with pytest.raises(RuntimeError, match=rf"{name}\.{function} .*needed by .*setup\.py install") as error:
            getattr(module, function)(1, 2, key=3)
        assert ("EMD metric" if name == "emd" else "GRNet") in str(error.value)


@pytest.mark.parametrize("name", PROBES)
def test_each_stand_in_has_what_the_real_one_is_probed_for(name):
    for module, attributes in PROBES[name].items():
        found = importlib.import_module(f"apml_plugin.standins.{module}")
        assert all(hasattr(found, attribute) for attribute in attributes)
    assert hasattr(importlib.import_module(f"apml_plugin.standins.{name}"), "__path__") == (name in PACKAGES)
