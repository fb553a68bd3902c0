"""Hosts with a training loop of their own: their loss is a function or an object, or a string chooses it."""
