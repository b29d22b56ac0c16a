"""What a search for eigenvalues looks for, and how much it may compute."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge

from landscape.runtime.settings import Settings

Which = Literal["LM", "LA", "SA", "BE"]


@dataclass(frozen=True, kw_only=True)
class Search(Settings):
    """Which eigenvalues of a symmetric operator a Lanczos search looks for, and how far it goes.

    Parameters
    ----------
    k
        The number of eigenvalues.
    which
        LM largest magnitude, LA largest, SA smallest, BE from both ends, as in scipy.sparse.linalg.eigsh.
    tol
        A pair has converged when its residual is at most tol * |eigenvalue|.
    max_products
        The most Hessian products for one search; pairs that have not converged by then are marked.
    max_basis
        The most vectors of the network's size held at once; by default as many as memory allows.
    second_look
        Search again, with at most as many products, from a start orthogonal to what was found. `complete` relies on a
        random start, which may hold next to nothing of a wanted eigenvector: 5 of 400 searches of a spectrum like that
        of a ResNet-20 missed one, and a second look found all five (benchmarks/second_look.py); of the 1,920 searches
        in results/study none did.
    """

    k: Annotated[int, Ge(1)] = 5
    which: Which = "LM"
    tol: Annotated[float, Ge(0)] = 1e-2
    max_products: Annotated[int, Ge(1)] = 200
    max_basis: Annotated[int, Ge(1)] | None = None
    second_look: bool = False

    def within(self, n: int) -> Search:
        """The search itself, without what a subclass adds, for an operator of size n: at most n eigenvalues."""
        same = {f.name: getattr(self, f.name) for f in fields(Search)}
        return Search(**{**same, "k": min(self.k, n)})

    def ends(self, m: int) -> tuple[int, int]:
        """How many of the wanted eigenvalues among m are from the high end, and from the low end; both 0 for LM."""
        k = min(self.k, m)
        high = {"LM": 0, "LA": k, "SA": 0, "BE": k - k // 2}[self.which]  # the odd one from the high end
        return high, 0 if self.which == "LM" else k - high
