"""Import-only stand-in for the compiled ``gridding_distance``: importing works, calling says what to build."""

from apml_plugin.standins.missing import unavailable

_NEEDED_BY = "the gridding loss of the model GRNet"
_REMEDY = "Build it where a CUDA compiler is: `python setup.py install` in the host's folder extensions/gridding_loss."

forward = unavailable("gridding_distance.forward", _NEEDED_BY, _REMEDY)
backward = unavailable("gridding_distance.backward", _NEEDED_BY, _REMEDY)
