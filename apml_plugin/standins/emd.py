"""Import-only stand-in for the compiled ``emd``: importing works, calling says what to build."""

from apml_plugin.standins.missing import unavailable

_NEEDED_BY = "the EMD metric (PoinTr: `--test` on PCN); training and validation do without"
_REMEDY = "Build it where a CUDA compiler is: `python setup.py install` in the host's folder extensions/emd."

forward = unavailable("emd.forward", _NEEDED_BY, _REMEDY)
backward = unavailable("emd.backward", _NEEDED_BY, _REMEDY)
