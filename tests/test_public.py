"""What `import landscape as ls` gives is documented so that tools read it: NumPy style, no parameter left out."""

import ast
import inspect

import pytest
from docstring_parser import DocstringStyle, parse
from helpers import ROOT

import landscape as ls
from landscape.cli.options import explained

STUB = ast.parse((ROOT / "landscape" / "__init__.pyi").read_text())
PUBLIC = sorted(str(a.asname) for n in STUB.body if isinstance(n, ast.ImportFrom) for a in n.names)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_of_what_is_public_is_documented(name):
    found = getattr(ls, name)
    if inspect.isclass(found):
        said = set(explained(found))
    else:
        doc = parse(inspect.getdoc(found) or "", DocstringStyle.NUMPYDOC)
        said = {part.strip("* ") for entry in doc.params for part in entry.arg_name.split(",")}
    if inspect.isclass(found) and issubclass(found, Exception):
        return
    asked = set(inspect.signature(found).parameters)
    assert asked <= said, f"{name} does not document {', '.join(sorted(asked - said))}"
