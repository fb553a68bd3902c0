"""Import-only stand-in for the compiled ``cubic_feature_sampling``: importing works, calling says what to build."""

from apml_plugin.standins.missing import unavailable

_NEEDED_BY = "the model GRNet"
_REMEDY = (
    "Build it where a CUDA compiler is: `python setup.py install` in the host's folder "
    "extensions/cubic_feature_sampling."
)

forward = unavailable("cubic_feature_sampling.forward", _NEEDED_BY, _REMEDY)
backward = unavailable("cubic_feature_sampling.backward", _NEEDED_BY, _REMEDY)
