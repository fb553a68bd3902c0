"""Reading files from outside the package: regular files only, within limits, without following links elsewhere.

- `opening`: open a regular file of a bounded size; text for messages about files.
- `sources`: the root of a project, and its Python files as syntax trees. `yamls`: plain values from YAML.
- `clouds`: point clouds from files. `ply_pcd`: these two formats.

Only `clouds` and `ply_pcd` need NumPy. All readers of the package use these functions, so that a pipe never blocks them
and a small file never fills the memory.
"""
