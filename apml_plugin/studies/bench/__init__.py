"""What ``apml bench`` measures: our losses and their peers on this machine.

Needs only torch, NumPy and SciPy: ``python -m apml_plugin.studies.bench`` runs the acceptance table without the
libraries of the command line. Each peer is used only if it can be imported; matplotlib is loaded only to draw.
"""
