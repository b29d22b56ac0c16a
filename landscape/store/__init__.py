"""The results file and its units: groups of labelled arrays in HDF5, work that is stored and continued unit by unit.

Nothing here knows what an analysis computes, nor how it is drawn.
"""

from landscape.store.file import discard_empty, load, save

__all__ = ["discard_empty", "load", "save"]
