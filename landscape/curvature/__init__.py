"""Products with the Hessian, the Gauss-Newton matrix and the rest, on mini-batches and on the whole data.

What is computed from products, such as eigenpairs, is in `landscape.linalg`; the analyses are in `landscape.analyses`.
"""
