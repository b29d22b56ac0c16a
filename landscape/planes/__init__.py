"""Directions through the space of the parameters and the planes that they span: random, or through what is known.

The grid over a plane is in `landscape.surfaces`.
"""
