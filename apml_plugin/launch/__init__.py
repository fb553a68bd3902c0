"""How ``apml run`` works: a host's script, unchanged, in an interpreter that is ready for it.

``apml run`` decides once (:mod:`.plan`), writes the decisions into environment variables (:mod:`.environment`)
and replaces itself by Python. There :file:`site/sitecustomize.py` installs import hooks (:mod:`.hooks`). Because
everything travels in the environment, DataLoader workers, torchrun's children and scripts that start scripts
get the same.
"""
