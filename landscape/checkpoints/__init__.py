"""Weights in a file: reading and writing them, whose names they are in, which network they fit, and what differs.

Networks themselves are in `landscape.models`; nothing in a file ever runs as code.
"""
