"""Results as pictures: from a group of a results file to matplotlib axes.

No torch: nothing here computes what is studied.
"""
