"""What is written of the rooms is what they are: the packages of the build, and the table that a newcomer reads."""

import ast
import configparser
import re

from helpers import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "landscape").glob("*/__init__.py")} | {"models"}


def test_every_room_is_built_into_the_package():
    built = SETUP["options"]["packages"].split()
    assert built == ["landscape", *sorted(f"landscape.{room}" for room in rooms())]


def test_the_table_of_rooms_says_what_the_rooms_say():
    """Generated: a row a room, by its level in the import contract, with the first sentence of its own docstring."""
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
        if path.parent.name != "cli"
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
