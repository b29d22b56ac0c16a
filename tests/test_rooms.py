"""What is written of the rooms is what they are: the packages of the build, and the table that a newcomer reads."""

import ast
import configparser
import re
from collections.abc import Iterator

from helpers import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
MOST_PARAMETERS, MOST_LINES = 12, 60  # of a function; beyond, a settings object, or a reason in the docstring


def rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "landscape").glob("*/__init__.py")} | {"models"}


def test_every_room_is_built_into_the_package():
    built = SETUP["options"]["packages"].split()
    assert built == ["landscape", *sorted(f"landscape.{room}" for room in rooms())]


def test_the_table_of_rooms_says_what_the_rooms_say():
    """Generated: a row for each room, by its level in the import contract, with the first sentence of its docstring."""
    levels = SETUP["importlinter:contract:levels"]["layers"].split("\n")[1:]
    by_level = [[room.strip() for room in level.split("|")] for level in reversed(levels)]
    rows = [
        f"| {level} | `{room}/` | {first_sentence(room)} |"
        for level, names in enumerate(by_level)
        for room in names
        if room in rooms()
    ]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    missing = [row for row in rows if row not in text]
    assert not missing, "CONTRIBUTING.md lacks:\n" + "\n".join(missing)


def first_sentence(room: str) -> str:
    folder = ROOT / "models" if room == "models" else ROOT / "landscape" / room
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def test_messages_of_the_library_name_no_options():
    """They name settings, in backquotes; the command line says which option asks for one."""
    found = [
        f"{path.relative_to(ROOT)}:{text.lineno}: {text.value}"
        for path in (ROOT / "landscape").rglob("*.py")
        if path.parent.name != "cli" and path.name != "again.py"  # which writes command lines
        for text in strings(ast.parse(path.read_text()))
        if re.search(r"(?<![\w-])--[a-z]", text.value)
    ]
    assert not found, "\n".join(found)


def strings(tree: ast.Module) -> list[ast.Constant]:
    """Those of the code: no docstrings."""
    documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(n.body[0].value) for n in documented if n.body and isinstance(n.body[0], ast.Expr)}
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [n for n in texts if id(n) not in docstrings]


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the package, by where it is."""
    for path in sorted([*(ROOT / "landscape").rglob("*.py"), *(ROOT / "models").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_function_takes_more_parameters_than_a_reader_holds():
    """A longer list is a settings object. `self` and `cls` are no parameters; `*args` and `**kwargs` are one each."""
    found = {}
    for where, node in functions():
        a = node.args
        named = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))]
        found[where] = len([name for name in named if name not in ("self", "cls")])
    assert len(found) > 500, "the functions of the package were not found"
    long = {where: count for where, count in found.items() if count > MOST_PARAMETERS}
    assert not long, f"more than {MOST_PARAMETERS} parameters: {long}"


def test_a_function_is_short_or_says_why_it_is_not():
    """Lines of code: the docstring, which is to say as much as it has to, does not count."""
    long = {}
    for where, node in functions():
        text = ast.get_docstring(node) or ""
        said = node.body[0].end_lineno - node.body[0].lineno + 1 if text else 0
        lines = node.end_lineno - node.lineno + 1 - said
        if lines > MOST_LINES and "It is long" not in text:
            long[where] = lines
    assert not long, f"more than {MOST_LINES} lines, and no sentence that begins with 'It is long': {long}"
