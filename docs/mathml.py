"""Formulas as MathML, by docutils' own converter."""

from docutils.utils.math.latex2mathml import tex2mathml


def inline(self, node):
    """A formula in a line."""
    self.body.append(tex2mathml(node.astext()))
    raise_skip()


def displayed(self, node):
    """A formula of its own lines."""
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise_skip()


def raise_skip():
    """The node has no children to visit."""
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app):
    """As sphinx asks of an extension."""
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
