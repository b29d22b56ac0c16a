"""Products with the curvature of the objective: its Hessian H, its generalised Gauss-Newton matrix G, and H - G.

An operator multiplies rows, as `landscape.linalg.operators.Operators` asks; called, it maps a vector (n,) over the
chosen parameters to a vector (n,), or rows (b, n) to rows. Products are by reverse over reverse, and the graph is kept
if the data fit into one chunk. The penalty's part is added once, in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from landscape.curvature.forms import Form, Local, Parts, form_of
from landscape.curvature.penalty import with_penalty
from landscape.objective.nests import Batch, Nest, length, split
from landscape.objective.networks import second_derivatives
from landscape.objective.objective import Objective
from landscape.objective.parameters import chosen, unflatten
from landscape.runtime.arithmetic import exact_arithmetic
from landscape.runtime.errors import UserError
from landscape.runtime.threads import stop_if_asked


class Curvature:
    """H, G or H - G of the objective, on its whole frozen data or on one batch, over all or some parameters.

    Parameters
    ----------
    objective
        The loss.
    x, y
        One batch, over whose units the loss is averaged; by default the whole frozen data.
    examples
        The numbers (M,), in ascending order, of the frozen examples to average over; None for all.
    kind
        hessian: H = grad^2 L. ggn: G = (1/N) sum_i J_i^T (grad_f^2 l_i) J_i with J_i the Jacobian of the outputs,
        plus the penalty's Hessian (Schraudolph 2002). residual: H - G, in which the penalty cancels. fisher: the mean
        over labels from the network's own distribution, which for most tasks is G. fisher_mc: the same from 8 draws of
        the labels. Or a `landscape.curvature.forms.Form`.
    parameters
        Names or patterns (`layer1.*`; a name stands for all below it) of the parameters to differentiate by; None for
        every trainable one.
    chunk_size
        The number of examples differentiated at once, which bounds the memory and changes the product by rounding only.
        By default one batch is one chunk, and the frozen data are taken as they were batched. If everything is one
        chunk, its graph is built once and kept. If a GPU's memory runs out, the chunks are halved, down to 1.

    Attributes
    ----------
    products
        How many vectors have been multiplied.

    Raises
    ------
    UserError
        For an unknown kind; for a chunk_size below 1; if no parameter is left; for a network without second
        derivatives; or if memory does not hold the graph of a single example.

    Examples
    --------
    The Hessian of logistic regression on one example x = 2 with p = 1/2 is p (1 - p) x^2 [[1, -1], [-1, 1]]:

    >>> import torch
    >>> import landscape as ls
    >>> network = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(network.weight)
    >>> H = ls.Curvature(ls.Objective(network, [(torch.tensor([[2.0]]), torch.tensor([0]))]))
    >>> H @ torch.eye(2)
    tensor([[ 1., -1.],
            [-1.,  1.]])
    >>> pairs = ls.eigenpairs(H, torch.tensor([1.0, 0.0]), ls.Search(k=1), vectors=True)
    >>> pairs.values.round(4), pairs.vectors.abs().numpy().round(4)
    (array([2.]), array([[0.7071, 0.7071]], dtype=float32))
    """

    def __init__(
        self,
        objective: Objective,
        x: Nest | None = None,
        y: Nest | None = None,
        *,
        examples: np.ndarray | None = None,
        kind: str | Form = "hessian",
        parameters: str | Sequence[str] | None = None,
        chunk_size: int | None = None,
    ) -> None:
        self.objective, self.form = objective, form_of(kind)
        self.parameters = chosen(objective.model, parameters)
        if chunk_size is not None and chunk_size < 1:
            raise UserError(f"chunk_size={chunk_size} must be 1 or more")
        if x is not None and y is not None:
            chunks, units = split((x, y), chunk_size or length(y)), objective.units_in(y)
        elif examples is not None:
            places = objective.data.places(examples, chunk_size or len(examples))
            chunks, units = [objective.data.at(place) for place in places], objective.units_of_example[examples].sum()
        else:
            chunks, units = objective.data.chunks(chunk_size), objective.units
        self._chunks: Iterable[Batch] = chunks
        self._keep = len(chunks) == 1
        self._scale = 1 / int(units)
        self._kept: list[Local] | None = None
        self.products = 0

    @property
    def n(self) -> int:
        return sum(p.numel() for p in self.parameters.values())

    def zeros(self) -> Tensor:
        """A vector (n,) of the operator's type and device."""
        return torch.zeros(self.n, dtype=self.objective.dtype, device=self.objective.device)

    def __call__(self, V: Tensor) -> Tensor:
        """The products, in the shape of V: (n,) or (b, n)."""
        if V.ndim == 1:
            return self(V[None])[0]
        out = self._product(V)
        self.products += len(V)
        return with_penalty(self, V, out)

    def _product(self, V: Tensor) -> Tensor:
        """The products with the rows of V (b, n), without the penalty."""
        parts = [self._parts(row) for row in V]

        def add(totals: Sequence[Parts], local: Local, kept: bool, _: int) -> None:
            for i, v in enumerate(parts):
                accumulate(totals[i], local.product(v, kept or i + 1 < len(V)))

        return self._summed(V, add)

    def __matmul__(self, V: Tensor) -> Tensor:
        """H @ v for a vector (n,), or for the columns of V (n, b)."""
        return self(V) if V.ndim == 1 else self(V.T).T

    @property
    def T(self) -> Curvature:
        """The transpose, which is the operator itself."""
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    def __repr__(self) -> str:
        """The form, the number of parameters and the objective, in one line."""
        return f"Curvature({self.form.title} of {self.n:,} parameters, {self.objective!r})"

    def rows(self, X: Tensor, members: Sequence[int] = (0,)) -> Tensor:
        """The products with X (1, b, n), as the only operator of its group."""
        return self(X[0])[None]

    def gradient(self) -> Tensor:
        """The gradient (n,) of the mean NLL, without the penalty."""
        return self._summed(self.zeros()[None], lambda totals, local, *_: accumulate(totals[0], local.gradient()))[0]

    def linear_operator(self) -> LinearOperator:
        """The same operator for scipy, which multiplies columns (n,) or (n, b)."""
        like = self.zeros().cpu()

        def matmat(V: np.ndarray) -> np.ndarray:
            rows = torch.as_tensor(np.ascontiguousarray(V.T), dtype=like.dtype, device=self.objective.device)
            return self(rows).cpu().numpy().T

        def matvec(v: np.ndarray) -> np.ndarray:
            return matmat(v.reshape(-1, 1))[:, 0]

        shape = (self.n, self.n)
        return LinearOperator(shape, matvec, rmatvec=matvec, matmat=matmat, rmatmat=matmat, dtype=like.numpy().dtype)

    def _summed(self, like: Tensor, add: Callable[[Sequence[Parts], Local, bool, int], None]) -> Tensor:
        """Rows like those of `like`, to which `add` has added the part of each chunk, given with its number.

        If memory runs out, it starts again with smaller chunks.
        """
        while True:
            out = torch.zeros_like(like)
            totals = [self._parts(row) for row in out]
            try:
                with exact_arithmetic(), second_derivatives():
                    for number, (local, kept) in enumerate(self._local()):
                        self._between_chunks()
                        add(totals, local, kept, number)
                return out
            except torch.OutOfMemoryError as e:
                largest = max(map(length, self._chunks))
                if largest == 1:
                    raise UserError(f"the memory does not hold the graph of a single example ({e})") from e
            self._cut(largest // 2)  # here, where nothing holds the failed graph any longer

    def _between_chunks(self) -> None:
        stop_if_asked()

    def _cut(self, size: int) -> None:
        """Cut into chunks of at most `size` examples from now on, and keep no graph."""
        self._keep, self._kept = False, None
        self._chunks = [part for chunk in self._chunks for part in split(chunk, size)]

    def _local(self) -> Iterator[tuple[Local, bool]]:
        form, parameters = self.form, list(self.parameters.values())
        if self._keep:
            if self._kept is None:
                self._kept = [form.local(self.objective, parameters, x, y, self._scale) for x, y in self._chunks]
            yield from ((local, True) for local in self._kept)
            return
        for x, y in self._chunks:
            yield form.local(self.objective, parameters, x, y, self._scale), False

    def _parts(self, v: Tensor) -> list[Tensor]:
        return list(unflatten(v, self.parameters).values())


def accumulate(totals: Parts, parts: Parts) -> None:
    """Add `parts` to `totals` in place, without a graph."""
    with torch.no_grad():
        torch._foreach_add_(list(totals), [part.detach() for part in parts])
