"""How ``apml run`` works: a host's script, unchanged, in an interpreter that is ready for it.

``apml run`` decides once (:mod:`.plan`), writes the decisions into environment variables (:mod:`.environment`) and
replaces itself by the command, or by a small parent that waits for it (:mod:`.supervise`) where a loss was asked for.
Each Python below starts with :mod:`.start`, called from a .pth file of the installed package and from
:file:`site/sitecustomize.py`: it installs import hooks (:mod:`.hooks`), which put the host's recipe into its modules
(:mod:`.recipes`). Because everything travels in the environment, DataLoader workers, torchrun's children and scripts
that start scripts get the same.
"""
