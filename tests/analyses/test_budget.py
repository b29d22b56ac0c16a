"""A budget of time stops between units: what is done is a valid result, and more time continues it to the same."""

import numpy as np
import pytest

import landscape as ls
from landscape.store.units import Work
from landscape.surfaces.measures import measure

ASKED = {
    "spectrum": (ls.hessian_spectrum, {"k": 2, "batch_size": 4, "workers": 1}),
    "density": (ls.spectral_density, {"probes": 9, "steps": 4}),
    "trace": (ls.hessian_trace, {"products": 30, "estimator": "hutchinson"}),
}


@pytest.mark.parametrize("name", sorted(ASKED))
def test_what_is_done_in_time_is_valid_and_continued(mlp, points, name):
    compute, settings = ASKED[name]
    objective = ls.Objective(mlp, points)
    whole = compute(objective, **settings)
    part = compute(objective, budget=0.0, **settings)
    assert int(part["done"].sum()) == 1, "at least one unit, and none begun after the time is over"
    for _ in range(2):
        part = compute(objective, budget=0.0, partial=part, **settings)
    assert int(part["done"].sum()) == 3
    assert compute(objective, partial=part, **settings).identical(whole)


def test_a_surface_cut_short_is_a_coarser_one(mlp, points):
    objective, plane = ls.Objective(mlp, points), ls.random_plane(mlp)
    settings = {"points": 21, "rays": 0, "workers": 1}
    whole = ls.evaluate_surface(objective, plane, **settings)
    part = ls.evaluate_surface(objective, plane, budget=0.0, **settings)
    assert part["done"].values[10, 10], "the network itself comes first"
    kept = [0, 2, 6, 10, 14, 18, 20]  # the coarsest level: from the middle, with both ends
    for _ in range(len(kept) ** 2 - 1):
        assert "measure" not in part, "no grid is whole"
        assert ls.Surface(**settings).estimates(part) == []
        part = ls.evaluate_surface(objective, plane, partial=part, budget=0.0, **settings)
    done = part["done"].values
    assert done.sum() == len(kept) ** 2
    assert done[np.ix_(kept, kept)].all()
    coarse = measure(whole.isel(x=kept, y=kept))
    np.testing.assert_allclose(part["measure"].sel(bound="estimate"), coarse["measure"].sel(bound="estimate"))
    assert ls.evaluate_surface(objective, plane, partial=part, **settings).identical(whole)


def test_a_search_cut_short_has_the_pairs_so_far(mlp, points):
    objective, settings = ls.Objective(mlp, points), {"k": 3, "tol": 1e-3}
    whole = ls.hessian_top(objective, **settings)
    part = ls.hessian_top(objective, budget=0.0, **settings)
    assert not part["done"]
    assert not part["complete"]
    assert int(part["products"]) == 1
    assert np.isfinite(part["eigenvalue"]).values.tolist() == [True, False, False]
    largest, smallest = ls.Top(**settings).estimates(part)
    assert largest.note == "the search is not finished, not converged"
    assert largest.value == smallest.value == float(part["eigenvalue"][0])
    assert ls.Top(**settings).estimates(whole)[0].note == ""
    assert ls.hessian_top(objective, partial=part, **settings).identical(whole)


@pytest.mark.parametrize("batch_size", [None, 10])
def test_a_density_stops_within_a_probe_and_continues_from_its_state(mlp, points, tmp_path, batch_size):
    objective, density = ls.Objective(mlp, points), ls.Density(probes=2, steps=4, batch_size=batch_size)
    part, products = None, 0
    while part is None or not part["done"].all():
        work = Work(budget=0.0).into(tmp_path / "a.h5", "density")
        part = density.run(objective, stored=part, work=work)
        work.stored(part)
        products += 1
    assert products == 8, "one at a time, of two probes"
    assert part.identical(density.run(objective))
    assert not list(tmp_path.iterdir())
