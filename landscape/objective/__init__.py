"""The loss: its task, parameters, examples and penalty, and networks rewritten so that it is computed faster.

Its second derivatives are in `landscape.curvature.operators`.
"""
