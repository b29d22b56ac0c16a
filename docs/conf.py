"""The documentation: `python -m sphinx -W -b html docs build/docs`. What the code says of itself comes from it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402
import mathml  # noqa: E402

import landscape  # noqa: E402

project = "landscape"
author = "The landscape developers"
copyright = author
version = release = landscape.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["**/.ipynb_checkpoints"]
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = "landscape"
html_static_path = ["static"]
html_css_files = ["landscape.css"]
html_show_sphinx = False
html_math_renderer = "mathml"  # browsers draw it by themselves: no script is fetched from anywhere
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#7db8f0", "color-brand-content": "#7db8f0"},
}

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks keep their outputs; the tests execute them
nb_merge_streams = True

napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
copybutton_exclude = ".linenos, .gp, .go"


def setup(app):
    """Pages that come from the code are written before sphinx looks which pages there are."""
    generate.write(HERE)
    app.connect("autodoc-process-docstring", generate.as_text, priority=100)  # before napoleon reads the sections
    mathml.setup(app)
