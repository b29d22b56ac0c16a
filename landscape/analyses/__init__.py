"""One file an analysis: its settings, its units, how one is computed, and the estimates that follow.

`base` says what an analysis is. Nothing here draws, parses options or opens files.
"""
