"""From argv to a call, by the only parser. A user's mistake ends in one line and exit status 2."""

from __future__ import annotations

import os
import re
import signal
import sys
import tomllib
import traceback
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml

from landscape import __version__
from landscape.catalogue import CATALOGUE, summary
from landscape.cli.logs import logged
from landscape.cli.options import option
from landscape.runtime import processes
from landscape.runtime.errors import UserError
from landscape.runtime.interrupts import ignored, noted, take_over
from landscape.runtime.visible import say

BEFORE = {
    "quickstart": "landscape.cli.studies:quickstart",
    "analyze": "landscape.cli.studies:analyze",
    "inspect": "landscape.cli.inspect:inspect",
}
AFTER = {  # between the two there is one for each analysis
    "train": "landscape.cli.training:train",
    "study": "landscape.cli.study:study",
    "compare": "landscape.cli.compare:compare",
    "plot": "landscape.cli.files:plot",
    "report": "landscape.cli.report:report",
    "show": "landscape.cli.files:show",
    "import": "landscape.cli.files:import_",
    "export": "landscape.cli.files:export",
}

VERBOSE = ("-v", "--verbose")  # options of every command
STORING = (
    "quickstart",
    "analyze",
    "inspect",
    "train",
    "study",
)  # like every analysis, these keep what they have computed


def application(asked: str = "", configs: Sequence[str] = ()) -> App:
    """The commands. Only the one asked for is imported; the others show the first line of their help.

    configs: TOML files with one table per command, of options by name; options on the command line take precedence.
    """
    app = App(
        name="landscape",
        help="Loss landscapes and Hessian spectra of neural networks. --config FILE.toml: options by name, of each"
        " command in its own table, as [surface]. -v, --verbose: what is done, and the traceback of an error;"
        " -q, --quiet: no progress and no report.",
        version=__version__,
        default_parameter=Parameter(negative=()),
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # the message about what was stored comes below
    )
    analyses = {name: (f"landscape.cli.analyses:{name}", entry.analysis) for name, entry in CATALOGUE.items()}
    others = {name: (target, target) for name, target in {**BEFORE, **AFTER}.items()}
    for name, (target, documented) in {**analyses, **others}.items():
        app.command(target, name=name, help=None if name == asked else summary(documented))
    app.config = tuple(Toml(file, must_exist=True) for file in configs)
    app.register_install_completion_command(help="Make this shell complete commands and options from now on.")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script."""
    take_over()
    ended = status(sys.argv[1:] if arguments is None else arguments)
    ignored()  # all is stored and printed: a signal while Python shuts down must not change that
    sys.exit(ended)


def status(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    given = [word for word in arguments if word not in VERBOSE]
    asked, verbose = next(iter(given), ""), len(given) < len(arguments)
    with logged(verbose):
        return _status(given, asked, verbose)


def _status(arguments: list[str], asked: str, verbose: bool) -> int:
    try:
        given, configs = _without_configs(arguments)
        application(asked, configs)(given, exit_on_error=False, print_error=False, result_action="return_value")
    except KeyboardInterrupt as e:
        return _stopped(getattr(e, "number", signal.SIGINT), asked)
    except (UserError, CycloptsError) as e:
        _say_where(e, verbose)
        say(f"landscape: {_in_words(str(e))}", error=True)
        return 2
    except BrokenPipeError:  # `landscape show vit.h5 | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is quiet
        return 0
    except OSError as e:
        _say_where(e, verbose)
        named = " ".join(map(str, filter(None, (e.filename, e.filename2)))) or "a file"
        say(f"landscape: {named[:200]} cannot be read or written: {e.strerror or e}", error=True)
        return 2
    except MemoryError as e:
        say(f"landscape: out of memory ({e}); ask for less at once", error=True)
        return 2
    except (Exception, SystemExit) as e:
        if (number := noted()) is not None and processes.size() > 1 and isinstance(e, RuntimeError):
            return _stopped(number, asked)  # another process ended first
        if (place := _in_users_code(e)) is None:
            raise
        _say_where(e, verbose)
        kind = "sys.exit" if isinstance(e, SystemExit) else type(e).__name__  # of whatever status: it is not our end
        say(f"landscape: {place} fails: {kind}: {' '.join(str(e).split())[:500]}", error=True)
        return 2
    return 0


def _say_where(e: BaseException, verbose: bool) -> None:
    """With -v, show the whole traceback of an error, including the user's own code."""
    if verbose:
        say("".join(traceback.format_exception(e)).rstrip(), error=True)


def _without_configs(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without every --config FILE.toml, and these files. Raises UserError for one that is not TOML."""
    given, files = [], []
    while arguments:
        first = arguments.pop(0)
        if first != "--config":
            given.append(first)
            continue
        if not arguments:
            raise UserError(
                "--config needs a TOML file with a table for each command, such as [surface], of options by name"
            )
        files.append(arguments.pop(0))
        try:
            tomllib.loads(Path(files[-1]).read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise UserError(f"--config {files[-1]} cannot be read as TOML: {getattr(e, 'strerror', None) or e}") from e
    return given, files


def _in_users_code(e: BaseException) -> str | None:
    """The line of the user's file, from --model FILE.py:function, through which the error came; None for none."""
    from landscape.runtime.own import MODULE

    frames = [(f.f_globals.get("__name__", ""), f.f_code.co_filename, n) for f, n in traceback.walk_tb(e.__traceback__)]
    places = [f"{file}, line {number}," for name, file, number in frames if name.startswith(MODULE)]
    return places[-1] if places else None


def _stopped(number: int, asked: str) -> int:
    """Say how to continue after a signal, and return the exit status for it."""
    why = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    more = "; continue with the same command" if asked in CATALOGUE or asked in STORING else ""
    if processes.rank() == 0:
        say(f"landscape: {why}{more}", error=True)
    return 128 + number


def _in_words(message: str) -> str:
    """A mistake in one line; the parser's messages on choices and missing values are worded like those of settings.

    A setting that the library names in backquotes becomes its option.
    """
    line = re.sub(r"`([a-z_]+)`", lambda setting: option(setting[1]), " ".join(message.split()))
    if choice := re.match(r'Invalid value "(.*)" for (--\S+)\. Choose from: (.*?)\.', line):
        return f"{choice[2]} {choice[1]} is not one of {choice[3].replace(chr(34), '')}"
    if own := re.match(r"Invalid value for --\S+: (--.*)", line):
        return own[1]
    if missing := re.match(r'Command ".*" parameter (--\S+) requires an argument', line):
        return f"{missing[1]} is required; --help explains it"
    return line
