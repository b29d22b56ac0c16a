"""Products with the Hessian, the Gauss-Newton matrix and the rest, on mini-batches and on the whole data.

What is made of the products, such as eigenpairs, is in `landscape.linalg`; what is studied, in `landscape.analyses`.
"""
