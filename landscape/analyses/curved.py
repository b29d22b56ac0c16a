"""The form of the curvature that an analysis studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from landscape.runtime.settings import Settings

Kind = Literal["hessian", "ggn", "residual", "fisher"]


@dataclass(frozen=True, kw_only=True)
class Curved(Settings):
    """The form of the curvature.

    Parameters
    ----------
    kind
        hessian; ggn, the Gauss-Newton part of it; residual, the rest; or fisher, the Fisher matrix, which for most
        tasks is ggn.
    """

    kind: Kind = "hessian"

    @property
    def form(self) -> str:
        """The name of the form, for the group in a results file; "" for the Hessian."""
        return "" if self.kind == "hessian" else self.kind

    @property
    def title(self) -> str:
        """The form in words."""
        from landscape.curvature.forms import form_of

        return form_of(self.kind).title
