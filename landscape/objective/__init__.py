"""The loss: of which task, parameters and examples, with which penalty, and a network rewritten to give it faster.

Its second derivatives are in `landscape.curvature.operators`.
"""
