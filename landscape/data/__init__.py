"""Data sets by name, their transforms, batches that are drawn once and frozen, and noise and corruptions for images.

How a batch becomes a loss is in `landscape.objective.objective`.
"""
