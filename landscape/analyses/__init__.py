"""One file for each analysis: its settings, its units, how a unit is computed, and the estimates that follow.

`base` says what an analysis is. Nothing here draws, parses options or opens files.
"""
