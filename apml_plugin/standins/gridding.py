"""Import-only stand-in for the compiled ``gridding``: importing works, calling says what to build."""

from apml_plugin.standins.missing import unavailable

_NEEDED_BY = "the model GRNet"
_REMEDY = "Build it where a CUDA compiler is: `python setup.py install` in the host's folder extensions/gridding."

forward = unavailable("gridding.forward", _NEEDED_BY, _REMEDY)
backward = unavailable("gridding.backward", _NEEDED_BY, _REMEDY)
rev_forward = unavailable("gridding.rev_forward", _NEEDED_BY, _REMEDY)
rev_backward = unavailable("gridding.rev_backward", _NEEDED_BY, _REMEDY)
