"""A loss as heights over a grid, as arrays alone: grids, refinement, measures, and other software's files.

Nothing here evaluates a network.
"""
