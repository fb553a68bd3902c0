"""Files from outside: opened only if they are files, read only as far as they are sane, never followed elsewhere.

- `opening`: a regular file and nothing else, no larger than asked for; `wording`: text of a file, fit for a terminal.
- `sources`: Python files of a clone to syntax trees; `yamls`: plain values from YAML.
- `clouds`: point clouds from the files people keep them in; `ply` and `pcd` from and to those two.

All but `clouds` need nothing beyond NumPy and PyYAML. Each reader of the package goes through here, so that a pipe
never keeps it waiting and a small file never fills the memory.
"""
