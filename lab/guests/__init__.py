"""Providers: how a guest comes to run. Only this package starts guests.

``qemu`` is the embedded default; ``ssh`` is for a machine that is already there.
"""
