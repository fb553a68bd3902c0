"""Hosts with a training loop of their own: their loss is a function, an object, or chosen by a string."""
