"""Results as pictures: from a group of a results file to matplotlib axes.

It needs no torch, since nothing here computes what is studied.
"""
