"""Pages that say what the code says: analyses from the catalogue, commands from the parser, the API from the stub."""

from __future__ import annotations

import ast
import re
import shutil
from collections import defaultdict
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import landscape
from landscape.catalogue import CATALOGUE, looked_up, summary
from landscape.cli.main import AFTER, BEFORE, application
from landscape.cli.options import explained

ROOT = Path(__file__).parent.parent
WORDS = {  # what is special to Markdown, and not to the plain text of a docstring
    **{mark: "\\" + mark for mark in "\\*_{}[]|$#^~"},
    "<": "&lt;",
    ">": "&gt;",
}
FIRST_USE = "\n    Parameters\n"
UNSAID = ("default: False", "default: ()")


def write(docs: Path) -> None:
    """All of them into docs/generated, anew; and the notebooks, which sphinx finds below docs alone."""
    out = docs / "generated"
    shutil.rmtree(out, ignore_errors=True)
    for name, pages in (("analyses", analyses()), ("commands", commands()), ("api", api())):
        (out / name).mkdir(parents=True)
        for page, text in pages.items():
            (out / name / page).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "notebooks", out / "notebooks", ignore=shutil.ignore_patterns("*.py", ".*", "__pycache__"))


def analyses() -> dict[str, str]:
    """A page for each analysis of the catalogue, and a table of all."""
    rows = [f"| [{name}]({name}.md) | {plain(entry.summary)} |" for name, entry in CATALOGUE.items()]
    table = ["| analysis | what it is |", "|---|---|", *rows]
    intro = (
        "An analysis is a frozen dataclass of settings: the same fields are keyword arguments in Python, options of its"
        " command, and the configuration that is stored with the result. How each number comes about is on the page of"
        " [definitions](../../definitions.md); how to write one of your own, in a"
        " [notebook](../notebooks/own_analysis.ipynb)."
    )
    pages = {"index.md": "\n".join(["# Analyses", "", intro, "", *table, "", *toctree(CATALOGUE)])}
    return pages | {f"{name}.md": _analysis(name) for name in CATALOGUE}


def _analysis(name: str) -> str:
    cls = CATALOGUE[name].settings
    said, example = _paragraphs(cls.__doc__ or "")
    hints, help_ = cls.__annotations__, explained(cls)
    assert hints is not None
    about = [
        f"One unit of work is one {cls.unit}: between two, a run can be stopped, shared out among processes, and"
        " continued.",
        "Of several checkpoints at once." if cls.several else "",
    ]
    lines = [f"# {name}", "", *said, f"```sh\n{example}\n```", "", " ".join(filter(None, about)), ""]
    lines += [
        f"In Python `ls.{cls.__name__}(...)`, in [the API](../api/analyses.rst); as a command"
        f" [`landscape {name}`](../commands/{name}.md), with the options of network, data and run besides.",
        "",
        "## Settings",
        "",
    ]
    for f in fields(cls):
        default = "needed" if f.default is MISSING else f"default `{f.default!r}`"
        unstored = ", not stored: it does not change the numbers" if f.name in cls.unstored else ""
        lines += [f"`{f.name}` ({default}{unstored})", f": {plain(help_.get(f.name, ''))}", ""]
    return "\n".join(lines)


def commands() -> dict[str, str]:
    """A page for each command, as the parser of the command line has it."""
    text = application().generate_docs(output_format="markdown", flatten_commands=True)
    parts = dict(re.findall(r"^# landscape (\S+)\n(.*?)(?=^# landscape |\Z)", text, re.M | re.S))
    targets = {**BEFORE, **{name: entry.analysis for name, entry in CATALOGUE.items()}, **AFTER}
    rows = [f"| [{name}]({name}.md) | {plain(summary(target))} |" for name, target in targets.items()]
    intro = (
        "Every command has `--help`. `--config FILE.toml` before or after it has options by name, those of each command"
        " in a table of its own, such as `[surface]`; an option that is given outright goes before. A user's mistake"
        " ends in one line and exit status 2, Ctrl-C in 130, SIGTERM in 143. `landscape --install-completion` teaches"
        " the shell to complete commands and options."
    )
    table = ["| command | what it does |", "|---|---|", *rows]
    pages = {"index.md": "\n".join(["# Commands", "", intro, "", *table, "", *toctree(targets)])}
    return pages | {f"{name}.md": _command(name, target, parts[name]) for name, target in targets.items()}


def _command(name: str, target: str, documented: str) -> str:
    said, example = _paragraphs(looked_up(target).__doc__ or "")
    usage = re.search(r"```console\n(.*?)\n```", documented)
    assert usage is not None, f"the parser has no usage of {name}"
    lines = [f"# {name}", "", *said, f"```sh\n{example}\n```", "", f"```text\n{usage[1]}\n```", ""]
    for option in re.findall(r"^\* `([^`]+)`: ?(.*)$", documented, re.M):
        names, rest = option
        words, tags = re.fullmatch(r"(.*?)((?: ?\*{1,2}\[.*)?)", rest).groups()
        marks = [plain(tag) for tag in re.findall(r"\*\[(.*?)\]\*", tags) if tag not in UNSAID]
        lines += [f"`{names}`" + (f" ({', '.join(marks)})" if marks else ""), f": {plain(words)}", ""]
    return "\n".join(lines)


def api() -> dict[str, str]:
    """The public names, by the rooms that they come from, with the docstrings."""
    names: dict[str, list[str]] = defaultdict(list)
    stub = ast.parse((ROOT / "landscape" / "__init__.pyi").read_text(encoding="utf-8"))
    for node in stub.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names[node.module.split(".")[0]] += [str(alias.asname) for alias in node.names]
    pages = {f"{room}.rst": _room(room, sorted(found, key=_as_said)) for room, found in names.items()}
    intro = "What `import landscape as ls` gives, by the rooms that it comes from. Nothing else is promised to stay."
    rows = [f"| [{room}]({room}.rst) | {', '.join(f'`{n}`' for n in sorted(found))} |" for room, found in names.items()]
    table = ["| room | names |", "|---|---|", *rows]
    return pages | {"index.md": "\n".join(["# Python", "", intro, "", *table, "", *toctree(names)])}


def _as_said(name: str) -> tuple[bool, str]:
    return not isinstance(getattr(landscape, name), type), name.lower()


def _room(room: str, names: list[str]) -> str:
    docstring = looked_up(f"landscape.{room}:__doc__") or room
    lines = [room, "=" * len(room), "", escaped(" ".join(docstring.split("\n\n")[0].split())), ""]
    for name in names:
        found: Any = getattr(landscape, name)
        kind = "class" if isinstance(found, type) else "function"
        lines += [f".. auto{kind}:: landscape.{name}"]
        if kind == "class" and not hasattr(found, "unstored"):  # settings are on the pages of the analyses
            lines += ["   :members:"]
        lines += [""]
    return "\n".join(lines)


def toctree(names: Any) -> list[str]:
    """The pages below this one, in the order of the table."""
    return ["```{toctree}", ":hidden:", "", *names, "```", ""]


def _paragraphs(docstring: str) -> tuple[list[str], str]:
    """What a docstring says, as Markdown, before its parameters; and its example."""
    text = docstring.split(FIRST_USE)[0]
    parts = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    (example,) = [part for part in parts if part.startswith("Example: ")]
    return [f"{plain(part)}\n" for part in parts if part != example], example.removeprefix("Example: ")


def plain(text: str) -> str:
    """Plain text as Markdown; what stands in backquotes stays as it is."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else "".join(WORDS.get(c, c) for c in part) for part in parts)


def escaped(text: str) -> str:
    """Plain text as reStructuredText; what stands in single backquotes is code."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(
        f"``{part.strip('`')}``" if part.startswith("`") else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part)
        for part in parts
    )


def _escaped_line(line: str) -> str:
    return "* " + escaped(line[2:]) if line.startswith("* ") else escaped(line)


def as_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text, of which NumPy's sections are read afterwards: no character of a formula is a mark of
    reStructuredText, but in examples; and a paragraph of entries, each with a hanging indent, is a list.
    """
    found: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        each = paragraph.split("\n")
        section = any(re.fullmatch(r"\s*-{3,}", line) for line in each)
        hanging = not section and any(line.startswith("    ") for line in each) and not each[0].startswith("    ")
        for line in each:
            if hanging:
                line = f"  {line.lstrip()}" if line.startswith(" ") else f"* {line}"
            found.append(line if re.match(r"\s*(>>>|-{3,}$)", line) else _escaped_line(line))
        found.append("")
    lines[:] = found
