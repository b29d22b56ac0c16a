"""Where weights came from, as the user says it: kept as JSON, in the types that readers of results rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from landscape.runtime.errors import UserError

TEXTS = ("model", "file", "sha256")


def of_ones_own(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """A provenance that can be stored and read again; values that JSON does not have become text.

    Readers of results rely on types: `model`, `file` and `sha256` are texts, `parameters` is an integer and `metadata`
    is a mapping. Other values of the last two are kept as own_parameters and own_metadata. Raises UserError if
    `provenance` is not a mapping.
    """
    if provenance is None:
        return {}
    if not isinstance(provenance, Mapping):
        raise UserError(f"provenance={provenance!r} is no mapping; give one such as {{'model': 'my network'}}")
    found: dict[str, Any] = json.loads(json.dumps({str(k): v for k, v in provenance.items()}, default=_plain))
    for name in TEXTS:
        if found.get(name, "") is None:
            del found[name]
        elif name in found:
            found[name] = str(found[name])
    for name, kind in (("parameters", int), ("metadata", dict)):
        if found.get(name) is not None and (not isinstance(found[name], kind) or found[name] is True):
            found[f"own_{name}"] = found.pop(name)
    return found


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
