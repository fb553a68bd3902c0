"""How ``apml run`` starts a host's own script, unchanged, with the plugin in it.

The command decides everything once (:mod:`.plan`, which asks :mod:`.probe` which modules are missing), writes the
decisions into environment variables (:mod:`.environment`), and becomes the script's process. Where a loss was asked
for, it becomes a small parent of that process instead (:mod:`.supervise`).

Each Python below begins with :mod:`.start`, which a .pth file of the installed package and
:file:`site/sitecustomize.py` call. It installs the import hook (:mod:`.import_hook`), which

* puts the host's recipe into its modules (:mod:`.recipes`),
* serves stand-ins for missing modules (:mod:`apml_plugin.standins`),
* gives libraries back what newer versions dropped (:mod:`.old_hosts`),
* takes CUDA calls to the CPU where there is no GPU (:mod:`.cpu_mode`).

Because the decisions are in the environment, DataLoader workers, torchrun's processes and scripts that start scripts
are treated alike.
"""
