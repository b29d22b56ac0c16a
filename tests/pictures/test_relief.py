"""Reliefs of surfaces: what is drawn is what the group holds, and it ends where the scale or the surface does."""

import matplotlib
import numpy as np
import pytest
from pictures.grids import X, Y, bowl, surface, texts

import landscape as ls
from landscape.pictures.surfaces import draw_surface

matplotlib.use("Agg")


def test_a_relief_has_the_surfaces_heights_and_is_open_where_it_diverged():
    z = bowl.copy()
    z[4, 8] = np.inf
    ax = draw_surface(surface(z, X, Y), "surface", look=ls.Look(quantity="loss"))["surface_3d"].axes[0]
    finite = facets(ax)
    at_grid = {(round(x, 9), round(y, 9)): h for x, y, h in finite}
    found = [at_grid.get((round(x, 9), round(y, 9))) for y in Y for x in X]
    expected = (z + 0.5).ravel()
    compared = [(h, e) for h, e in zip(found, expected, strict=True) if h is not None]
    assert len(compared) == 44
    assert all(h == pytest.approx(e) for h, e in compared)
    assert finite[(finite[:, 0] > 1.26) & (finite[:, 1] > 0.76)].size == 0
    assert "diverged" in texts(ax)


def facets(ax):
    """The corners of a relief's facets, (corners, 3)."""
    relief = ax.collections[0]
    return relief._faces[~np.broadcast_to(relief._invalid_vertices, relief._faces.shape[:2])]


def test_a_relief_is_cut_at_the_end_of_its_scale_along_a_line():
    """x + y cut at 1: every facet ends there, on the line x + y = 1, not on the cells' corners."""
    c = np.linspace(0, 1, 5)
    group = surface(np.add.outer(c, c), c, c)
    ax = draw_surface(group, "s", look=ls.Look(limits=(0, 1)))["s_3d"].axes[0]
    corners = facets(ax)
    assert corners[:, 2].max() == pytest.approx(1)
    np.testing.assert_allclose(corners[:, 0] + corners[:, 1], corners[:, 2], atol=1e-9)
    edge = corners[np.isclose(corners[:, 2], 1)]
    assert len(set(np.round(edge[:, 0], 6))) > 30
    assert "open above 1" in texts(ax)


def test_a_trajectory_lies_on_the_relief():
    path = np.array([[1.2, 0.9], [0.4, 0.2], [0, 0]])
    group = surface(bowl, X, Y, plane={"directions": "pca"}).assign(trajectory=(("checkpoint", "axis"), path))
    ax = draw_surface(group, "s")["s_3d"].axes[0]
    (line,) = (one for one in ax.lines if one.get_label() == "trajectory")
    x, y, z = line.get_data_3d()
    assert (x[0], y[0]) == (1.2, 0.9)
    at_start = np.interp(1.2, X, bowl[3] * 0.4 + bowl[4] * 0.6)
    low, high = ax.get_zlim()
    assert z[0] - at_start == pytest.approx(0.01 * (high - low))
