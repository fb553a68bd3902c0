"""A folder for PYTHONPATH: Python finds ``sitecustomize`` in it. A package only so that it gets installed."""
