"""What ``apml bench`` measures: our losses and their peers on this machine.

Needs torch, NumPy and SciPy alone (``python -m apml_plugin.bench`` runs the acceptance table without the command
line's libraries). Each peer is used only if it can be imported; matplotlib is loaded only to draw.
"""
