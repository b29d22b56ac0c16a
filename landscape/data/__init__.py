"""Data sets by name, their transforms, and batches that are drawn once and frozen.

How a batch becomes a loss is in `landscape.objective.objective`.
"""
