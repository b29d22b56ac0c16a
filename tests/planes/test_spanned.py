import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dense_hessian, unchanged
from torch import nn

import landscape as ls
from landscape.objective.parameters import displaced, flatten
from landscape.planes.plane import Plane
from landscape.planes.spanned import EIGENVECTORS, eigenvector_plane, pca_plane, plane_through, with_trajectory
from landscape.surfaces.grid import grid
from landscape.surfaces.remarks import describe_measures


def perturbed(model: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    """The same network somewhere else, buffers included."""
    other = copy.deepcopy(model)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p += scale * torch.randn(p.shape, generator=g).to(p)
        for b in other.buffers():
            if b.is_floating_point():
                b *= 1 + 0.5 * torch.rand(b.shape, generator=g).to(b)
    return other


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    model(torch.randn(32, 1, 6, 6))  # running statistics of its own
    return model.eval()


@pytest.fixture
def images():
    g = torch.Generator().manual_seed(3)
    return [(torch.randn(30, 1, 6, 6, generator=g), torch.randint(0, 3, (30,), generator=g))]


def nll(model, data):
    return ls.Objective(model, data, dtype=torch.float64).evaluate().nll


def test_a_line_goes_from_one_network_to_the_other_with_their_statistics(convolutional, images):
    other = perturbed(convolutional, 1)
    with unchanged(convolutional):
        plane = plane_through(convolutional, {"other": other.state_dict()}, label="one")
        objective = ls.Objective(convolutional, images, dtype=torch.float64)
        curve = ls.evaluate_surface(objective, plane, points=5, span=(0.0, 1.0))
    assert curve["nll"].dims == ("x",)
    assert float(curve["nll"][0]) == nll(convolutional, images)
    assert float(curve["nll"][-1]) == pytest.approx(nll(other, images), rel=1e-6)
    assert curve["trajectory"].values.tolist() == [[0.0], [1.0]]
    assert curve["checkpoint"].values.tolist() == ["one", "other"]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 20, 21, 51])
def test_the_grid_of_a_line_has_both_networks_on_it(convolutional, images, count):
    other = perturbed(convolutional, 1)
    plane = plane_through(convolutional, {"other": other.state_dict()})
    objective = ls.Objective(convolutional, images, dtype=torch.float64)
    curve = ls.evaluate_surface(objective, plane, points=count, span=plane.reach(count))
    assert curve.sizes["x"] == count
    assert float(curve["nll"].sel(x=0)) == nll(convolutional, images)
    assert float(curve["nll"].sel(x=1)) == pytest.approx(nll(other, images), rel=1e-6)
    low, high = curve["x"].values[[0, -1]]
    assert count < 20 or -0.3 < low < 0 < 1 < high < 1.3


@pytest.mark.parametrize("count", [11, (20, 31), 51])
def test_the_grid_of_a_plane_has_its_networks_on_its_lines(convolutional, count):
    others = {"a": perturbed(convolutional, 1).state_dict(), "b": perturbed(convolutional, 2).state_dict()}
    plane = plane_through(convolutional, others)
    counts, at = np.broadcast_to(count, 2), plane.marks["trajectory"].values
    axes = [grid(n, *ends, at[:, k]) for k, (n, ends) in enumerate(zip(counts, plane.reach(count), strict=True))]
    assert {0.0, 1.0} <= set(axes[0])
    assert {0.0, at[2, 1]} <= set(axes[1])
    for k, axis in enumerate(axes):
        assert axis[0] < at[:, k].min()
        assert at[:, k].max() < axis[-1]
        assert len(axis) == counts[k]


def test_three_checkpoints_lie_at_their_coordinates_in_a_plane_that_keeps_distances(convolutional, images):
    networks = {"a": perturbed(convolutional, 1), "b": perturbed(convolutional, 2)}
    plane = plane_through(convolutional, {k: m.state_dict() for k, m in networks.items()})
    at = plane.marks["trajectory"].values
    np.testing.assert_array_equal(at[:2], [[0, 0], [1, 0]])
    lengths = [torch.linalg.vector_norm(flatten(d)) for d in plane.directions]
    assert float(lengths[0]) == pytest.approx(float(lengths[1]), rel=1e-6)
    assert abs(float(torch.dot(flatten(plane.directions[0]), flatten(plane.directions[1])))) < 1e-5
    theta = {k: flatten(dict(m.named_parameters())) for k, m in networks.items()}
    distance = float(torch.linalg.vector_norm(theta["a"] - theta["b"]).detach())
    assert np.linalg.norm(at[2] - at[1]) * float(lengths[0]) == pytest.approx(distance, rel=1e-5)
    objective = ls.Objective(convolutional, images, dtype=torch.float64)
    moves = [{**d, **b} for d, b in zip(plane.directions, plane.buffers, strict=True)]
    for coordinates, network in zip(at[1:], networks.values(), strict=True):
        with displaced(objective.model, moves, coordinates.tolist()):
            assert objective.evaluate().nll == pytest.approx(nll(network, images), rel=1e-5)


def test_what_spans_no_plane_is_refused(convolutional):
    state = convolutional.state_dict()
    with pytest.raises(ls.UserError, match="there is no line"):
        plane_through(convolutional, {"same": state})
    half = {k: v * 1.5 if v.is_floating_point() else v for k, v in state.items()}
    whole = {k: v * 2.0 if v.is_floating_point() else v for k, v in state.items()}
    with pytest.raises(ls.UserError, match="lie on one line"):
        plane_through(convolutional, {"half": half, "whole": whole})
    with pytest.raises(ls.UserError, match="3 other checkpoints"):
        plane_through(convolutional, {"a": state, "b": state, "c": state})
    with pytest.raises(ls.UserError, match="x is not a checkpoint of the same network"):
        plane_through(convolutional, {"x": {**state, "0.weight": torch.zeros(2)}})


@pytest.mark.parametrize(("which", "places"), [("LA", (-1, -2)), ("SA", (0, 1)), ("BE", (-1, 0))])
def test_along_an_eigenvector_the_surface_curves_by_its_eigenvalue(mlp, points, which, places):
    objective = ls.Objective(mlp, points, weight_decay=0.2, dtype=torch.float64)
    truth = np.linalg.eigvalsh(dense_hessian(objective))
    with unchanged(mlp):
        plane = eigenvector_plane(objective, replace(EIGENVECTORS, which=which, tol=1e-8))
        surface = ls.evaluate_surface(objective, plane, points=3, span=1e-3)
    f = surface["loss"].values
    for row, place in ((f[1], places[0]), (f[:, 1], places[1])):
        assert (row[0] - 2 * row[1] + row[2]) / 1e-6 == pytest.approx(truth[place], abs=1e-5)
    np.testing.assert_allclose(plane.config["eigenvalues"], truth[list(places)], rtol=1e-6)


def test_the_curvature_of_the_surfaces_own_examples_is_stored_and_drawn(mlp, points):
    """The plane is of the first ten examples, the curves of all fifty: they bend by v^T H v over the fifty."""
    x, y = (torch.cat([batch[i] for batch in points]) for i in (0, 1))
    few = ls.Objective(mlp, [(x[:10], y[:10])], dtype=torch.float64)
    objective = ls.Objective(mlp, points, dtype=torch.float64)
    plane = eigenvector_plane(few, replace(EIGENVECTORS, tol=1e-8))
    surface = ls.evaluate_surface(objective, plane, points=3, span=1e-3, rays=0)
    H = dense_hessian(objective)
    f, own = surface["nll"].values, surface["direction_curvature"].values
    for k, row in enumerate((f[1], f[:, 1])):
        v = flatten(plane.directions[k]).double().numpy()
        assert own[k] == pytest.approx(v @ H @ v, rel=1e-6)
        assert (row[0] - 2 * row[1] + row[2]) / 1e-6 == pytest.approx(own[k], abs=1e-5)
    np.testing.assert_allclose(surface["direction_eigenvalue"], plane.config["eigenvalues"])
    assert abs(own - plane.config["eigenvalues"]).max() > 0.01
    folds = [
        dense_hessian(objective, *(t.double() if t.is_floating_point() else t for t in (x[i::20], y[i::20])))
        for i in range(20)
    ]
    v = flatten(plane.directions[0]).double().numpy()
    spread = np.std([v @ fold @ v for fold in folds], ddof=1) / np.sqrt(20)
    assert surface["direction_curvature_sem"].values[0] == pytest.approx(spread, rel=0.2)
    lines = describe_measures(surface)
    assert lines[0].startswith(f"v^T H v along x {own[0]:.3g} +- ")
    assert lines[0].endswith(f"(eigenvalue {plane.config['eigenvalues'][0]:.3g})")


def test_projections_of_known_points_are_exact(mlp):
    plane = ls.random_plane(mlp, biases=True)
    like = dict(mlp.named_parameters())
    g = torch.Generator().manual_seed(5)
    apart = {name: torch.randn(p.shape, generator=g, dtype=torch.float64) for name, p in like.items()}
    basis = torch.stack([flatten(d).double().detach() for d in plane.directions])
    v = flatten(apart)
    v = v - torch.linalg.lstsq(basis.T, v).solution @ basis  # orthogonal to both directions
    for coordinates in ((0.3, -1.2), (0.0, 0.0), (2.0, 1.0)):
        delta = torch.tensor(coordinates, dtype=torch.float64) @ basis + 0.7 * v
        parts = dict(zip(like, delta.split([p.numel() for p in like.values()]), strict=True))
        at, off = plane.coordinates({name: part.view(like[name].shape) for name, part in parts.items()})
        np.testing.assert_allclose(at, coordinates, atol=1e-10)
        assert off == pytest.approx(0.7 * float(torch.linalg.vector_norm(v)), rel=1e-9)


def trajectory_in_a_plane(model):
    """Seven networks in a plane through `model`, of known coordinates along two orthonormal directions."""
    theta = flatten({k: p.detach().double() for k, p in model.named_parameters()})
    g = torch.Generator().manual_seed(2)
    e, _ = torch.linalg.qr(torch.randn(len(theta), 2, generator=g, dtype=torch.float64))
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    coordinates = torch.stack([3 * (1 - t), torch.sin(3 * t)], 1)
    coordinates -= coordinates[-1].clone()
    states = {}
    for i, c in enumerate(coordinates):
        vector = theta + e @ c
        sizes = [p.numel() for p in model.parameters()]
        named = zip(model.named_parameters(), vector.split(sizes), strict=True)
        states[f"epoch{i}"] = {name: part.view(p.shape) for (name, p), part in named}
    return states, coordinates.numpy()


def test_principal_components_of_a_plane_trajectory(mlp):
    states, truth = trajectory_in_a_plane(mlp)
    with unchanged(mlp):
        plane = pca_plane(mlp, states)
    found = plane.marks["trajectory"].values
    # up to a rotation or reflection of the axes: the same distances
    np.testing.assert_allclose(
        np.linalg.norm(found[:, None] - found, axis=-1), np.linalg.norm(truth[:, None] - truth, axis=-1), atol=1e-5
    )
    np.testing.assert_allclose(found[-1], 0, atol=1e-6)
    assert plane.marks["off_plane"].max() < 1e-5
    reach = np.array(plane.reach())
    assert (reach[:, 0] < found.min(0)).all()
    assert (found.max(0) < reach[:, 1]).all()
    for n, ends in ((5, plane.reach(5)), (51, plane.reach(51))):
        assert all(0.0 in grid(n, *pair) for pair in ends)
        assert (np.array(ends)[:, 0] < found.min(0)).all()
        assert (found.max(0) < np.array(ends)[:, 1]).all()
    centred = truth - truth.mean(0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(plane.marks["explained"], variances / variances.sum(), rtol=1e-5)
    with pytest.raises(ls.UserError, match="2 checkpoints span no 2 components"):
        pca_plane(mlp, dict(list(states.items())[:2]))
    with pytest.raises(ls.UserError, match="do not move in 2 directions"):
        pca_plane(mlp, {str(i): states["epoch0"] for i in range(4)})


def test_a_trajectory_on_any_plane(mlp):
    states, _ = trajectory_in_a_plane(mlp)
    plane = with_trajectory(ls.random_plane(mlp), mlp, states)
    assert plane.marks["trajectory"].shape == (7, 2)
    np.testing.assert_allclose(plane.marks["trajectory"][-1], 0, atol=1e-6)
    assert (plane.marks["off_plane"][:-1] > 0.1).all()


def test_stored_and_loaded_the_same_plane_serves_another_network(convolutional, images, tmp_path):
    other = perturbed(convolutional, 1)
    for plane in (
        ls.random_plane(convolutional, seed=4),
        plane_through(convolutional, {"other": other.state_dict()}),
    ):
        ls.save(tmp_path / "plane.h5", plane=plane.to_dataset())
        loaded = Plane.from_dataset(ls.load(tmp_path / "plane.h5")["plane"], other)
        assert loaded.config == plane.config
        for a, b in zip(loaded.directions, plane.directions, strict=True):
            torch.testing.assert_close(flatten(a), flatten({k: b[k] for k in a}), rtol=0, atol=0)
        settings = {"points": 3, "span": 0.5}
        there, here = (ls.evaluate_surface(ls.Objective(other, images), p, **settings) for p in (loaded, plane))
        np.testing.assert_array_equal(there["nll"], here["nll"])
    with pytest.raises(ls.UserError, match="of another network: this one lacks"):
        Plane.from_dataset(ls.load(tmp_path / "plane.h5")["plane"], nn.Linear(2, 2))
    whole = ls.load(tmp_path / "plane.h5")["plane"]
    for layout in ({"direction": 3}, {"direction": [["a"]]}, {"direction": []}, {"buffer": []}):
        with pytest.raises(ls.UserError, match=r"is not as a surface makes it|holds no directions"):
            Plane.from_dataset(whole.assign_attrs(layout=layout), nn.Linear(2, 2))
