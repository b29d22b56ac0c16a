"""Which form of the curvature an analysis is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from landscape.runtime.settings import Settings

Kind = Literal["hessian", "ggn", "residual"]


@dataclass(frozen=True, kw_only=True)
class Curved(Settings):
    """The form of the curvature.

    Parameters
    ----------
    kind
        hessian; ggn, the Gauss-Newton part of it; or residual, the rest.
    """

    kind: Kind = "hessian"

    @property
    def form(self) -> str:
        """Its name where it is not the Hessian, for what a results file tells each form by."""
        return "" if self.kind == "hessian" else self.kind

    @property
    def title(self) -> str:
        """It in words."""
        from landscape.curvature.forms import form_of

        return form_of(self.kind).title
