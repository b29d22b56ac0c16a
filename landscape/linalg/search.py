"""What a search for eigenvalues looks for, and what it may spend."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge

from landscape.runtime.settings import Settings

Which = Literal["LM", "LA", "SA", "BE"]


@dataclass(frozen=True, kw_only=True)
class Search(Settings):
    """Which eigenvalues of a symmetric operator are searched for by Lanczos, and how far.

    Parameters
    ----------
    k
        Eigenvalues.
    which
        LM largest magnitude, LA largest, SA smallest, BE from both ends, as in scipy.sparse.linalg.eigsh.
    tol
        A pair has converged at a residual of tol * |eigenvalue|.
    max_products
        Hessian products allowed for one search; what has not converged by then is marked.
    max_basis
        Vectors of the network's size held at once; by default what memory allows.
    second_look
        Search again, for as many products at most, from a start orthogonal to what was found: `complete` rests on a
        random start, which may hold next to nothing of a wanted eigenvector. 5 of 400 searches of a spectrum like a
        ResNet-20's missed one, 0 of 1,920 of those in results/study; a second look found all five
        (benchmarks/second_look.py).
    """

    k: Annotated[int, Ge(1)] = 5
    which: Which = "LM"
    tol: Annotated[float, Ge(0)] = 1e-2
    max_products: Annotated[int, Ge(1)] = 200
    max_basis: Annotated[int, Ge(1)] | None = None
    second_look: bool = False

    def within(self, n: int) -> Search:
        """The search alone, without what a subclass adds, in an operator of size n: of n eigenvalues at most."""
        same = {f.name: getattr(self, f.name) for f in fields(Search)}
        return Search(**{**same, "k": min(self.k, n)})

    def ends(self, m: int) -> tuple[int, int]:
        """How many of those wanted among m are from the high end, and how many from the low one; none of LM."""
        k = min(self.k, m)
        high = {"LM": 0, "LA": k, "SA": 0, "BE": k - k // 2}[self.which]  # the odd one from the high end
        return high, 0 if self.which == "LM" else k - high
