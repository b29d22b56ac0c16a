"""Linear algebra of symmetric operators that are known by their products alone: Krylov basis, eigenpairs, quadrature.

Nothing here knows where a matvec comes from. Hessians are in `landscape.curvature.operators`.
"""
