"""What the documentation shows can be typed: every command line parses, every name of `ls` is there, every link leads
somewhere, and every analysis is told of.
"""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from helpers import ROOT

import landscape as ls
from landscape.catalogue import CATALOGUE
from landscape.cli.main import application
from landscape.study.toml import of_table

PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if not {"generated"} & set(page.parts)),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LOOP = re.compile(r"\$\{.*?\}|\$\w+|\$\(.*?\)")


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The code of a page in these languages; a cell of a notebook is Python with lines for the shell."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        yield from ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        return
    yield from re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """Every call of `landscape` in a page, as arguments."""
    found = []
    for block in blocks(page, "sh"):
        block = block.replace("--sam $sam", "--sam 0.05")
        for line in re.sub(r"\\\n", " ", block).splitlines():
            call = re.search(r"(?:^|[!\s]|-m )landscape ([a-z].*)", line.split(" #")[0])
            if call and (page.suffix != ".ipynb" or line.startswith("!") or block.startswith("%%sh")):
                found.append(shlex.split(re.split(r"[|;&]", LOOP.sub("1", call[1]))[0]))
    return [arguments for arguments in found if arguments]


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.stem)
def test_every_command_line_parses(page):
    app = application()
    for arguments in commands(page):
        try:
            app.parse_args(arguments, exit_on_error=False, print_error=False)
        except CycloptsError as e:
            pytest.fail(f"{page.name}: landscape {shlex.join(arguments)}: {e}")


def test_there_are_commands_to_parse():
    assert sum(len(commands(page)) for page in PAGES) > 60


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.stem)
def test_python_is_python_and_names_what_there_is(page):
    for block in blocks(page, "python"):
        if block.startswith("%%sh"):
            continue
        if block.startswith("%%writefile"):
            block = block.partition("\n")[2]
        code = re.sub(r"^[!%](?:.*\\\n)*.*$", "", block, flags=re.M)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ls":
                assert hasattr(ls, node.attr), f"{page.name} has ls.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_study_can_be_read(page):
    for block in blocks(page, "toml"):
        study = of_table(tomllib.loads(block))
        assert {name for claim in study.claims for name in claim.groups} <= set(study.all_groups)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    """Those to pages that are generated are looked at by sphinx, which refuses to build a page with a broken one."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http") and "generated/" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_analysis_has_its_group_told_of_and_its_numbers_defined():
    groups, text = (ROOT / "docs" / "file-format.md").read_text(), (ROOT / "docs" / "definitions.md").read_text()
    for name in CATALOGUE:
        assert re.search(rf"^\| `{name}[`_]", groups, re.M), f"docs/file-format.md has no row of {name}"
        assert name.lower() in text.lower(), f"docs/definitions.md says nothing of {name}"
