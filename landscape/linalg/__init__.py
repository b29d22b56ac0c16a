"""Linear algebra of symmetric operators that are known only by their products: Krylov basis, eigenpairs, quadrature.

Nothing here knows where a matvec comes from. Hessians are in `landscape.curvature.operators`.
"""
