"""The user's own code, named on a command line: `path/to/file.py:function`, with settings in brackets.

Only what the user names is ever imported; a checkpoint cannot name code (SECURITY.md).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from landscape.runtime.errors import UserError, a_few, near_matches

MODULE = "landscape_user_"  # how the names of the user's modules begin


def is_own(name: str) -> bool:
    """Whether a name is that of the user's own code."""
    return ".py:" in name


def split_settings(spelled: str, what: str = "network") -> tuple[str, dict[str, Any]]:
    """ "vit_ti(local=3)" -> "vit_ti", {"local": 3}: Python literals by keyword. Raises UserError for anything else."""
    file, code, rest = spelled.rpartition(".py:")
    name, parenthesis, _ = rest.partition("(")
    name = file + code + name
    if not parenthesis:
        return spelled, {}
    try:
        call = ast.parse(f"f({spelled[len(name) + 1 :]}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("settings go by keyword")
        return name, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise UserError(f"{spelled!r} is no {what} with settings; write it as in 'vit_ti(local=3, depth=6)'") from e


class OwnFunction:
    """A function of the user's own, which is given those of the arguments that it takes.

    Parameters
    ----------
    function
        The function, or a class.
    settings
        Arguments that it is always given.

    Raises
    ------
    UserError
        For settings that the function does not take; and, with its own message, if a call of it fails.
    """

    def __init__(self, function: Callable[..., Any], settings: Mapping[str, Any] | None = None) -> None:
        self.function, self.settings = function, dict(settings or {})
        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        parameters = inspect.signature(function).parameters.values()
        self.takes = {p.name for p in parameters}
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if unknown := [name for name in self.settings if not self.accepts(name)]:
            raise UserError(f"{self.name} takes no {a_few(unknown)}; {near_matches(unknown[0], self.takes)}")

    def accepts(self, name: str) -> bool:
        """Whether it takes an argument of this name."""
        return self._takes_all or name in self.takes

    def taken(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that a call gives it: those that it takes and that are not None, and the settings."""
        given = {name: value for name, value in arguments.items() if value is not None and self.accepts(name)}
        return {**given, **self.settings}

    def __call__(self, **arguments: Any) -> Any:
        """The result of the function, called with those of the arguments that it takes."""
        try:
            return self.function(**self.taken(arguments))
        except UserError:
            raise
        except (Exception, SystemExit) as e:
            raise UserError(f"{self.name} fails: {own_words(e)}") from e


def own_function(spelled: str, what: str) -> OwnFunction:
    """The function of `path/to/file.py:function(settings)`, from its file.

    Parameters
    ----------
    spelled
        As the user has named it.
    what
        What it is for, such as "model"; messages say so.

    Raises
    ------
    UserError
        If there is no such file or function, or the file cannot be imported.
    """
    named, settings = split_settings(spelled, what)
    file, _, function = named.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no such file: {file} (of {what} {spelled})")
    module_name = f"{MODULE}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # it stays: files beside this one may be imported later, when the network runs
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        raise UserError(f"{file} cannot be imported: {own_words(e)}") from e
    finally:
        sys.path.remove(folder)
    if not callable(getattr(module, function, None)):
        known = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module_name]
        raise UserError(f"{file} has no function {function!r}; {near_matches(function, known)}")
    return OwnFunction(getattr(module, function), settings)


def own_words(e: BaseException) -> str:
    """The type and the message of an error that the user's code raised."""
    kind = "sys.exit" if isinstance(e, SystemExit) else type(e).__name__
    return f"{kind}: {e}" if str(e) else kind
