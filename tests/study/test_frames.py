"""Results as tables of plain numbers: what was stored, to the last digit, in every format."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import invoke, refused

import landscape as ls
from landscape.catalogue import settings_of
from landscape.study.tables import booktabs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two files of several analyses of one small network."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 2))
    g = torch.Generator().manual_seed(1)
    objective = ls.Objective(model, [(torch.randn(48, 6, generator=g), torch.randint(0, 2, (48,), generator=g))])
    groups = {
        "spectrum": ls.hessian_spectrum(objective, batch_size=4, k=2),
        "spectrum_per_layer": ls.hessian_spectrum(objective, batch_size=12, k=2, per="layer"),
        "top": ls.hessian_top(objective, k=3),
        "density": ls.spectral_density(objective, probes=9, steps=5),
        "trace": ls.hessian_trace(objective, products=30),
        "surface": ls.evaluate_surface(objective, ls.random_plane(model, seed=0), points=3, rays=0),
        "plane": ls.random_plane(model, seed=0).to_dataset(),
    }
    folder = tmp_path_factory.mktemp("results")
    ls.save(folder / "a.h5", **groups)
    ls.save(folder / "b_c.h5", **{k: groups[k] for k in ("spectrum", "trace")})
    return folder, ls.load(folder / "a.h5")


def test_a_row_a_unit_with_the_very_values(results):
    _, groups = results
    spectrum = ls.to_dataframe(groups["spectrum"])
    assert list(spectrum.columns[:2]) == ["batch", "rank"]
    assert len(spectrum) == groups["spectrum"]["eigenvalue"].size == 24
    assert np.array_equal(spectrum["eigenvalue"], groups["spectrum"]["eigenvalue"].values.ravel())
    assert np.array_equal(spectrum["nll"], np.repeat(groups["spectrum"]["nll"].values, 2))  # the batch's, on each row
    per_layer = ls.to_dataframe(groups["spectrum_per_layer"])
    assert list(per_layer.columns[:3]) == ["part", "batch", "rank"]
    surface = ls.to_dataframe(groups["surface"])
    assert len(surface) == 9
    at = surface.set_index(["y", "x"])["nll"]
    assert all(at[y, x] == groups["surface"]["nll"].sel(y=y, x=x) for y, x in at.index)


def test_every_group_has_a_table(results):
    _, groups = results
    for name, group in groups.items():
        frame = ls.to_dataframe(group)
        assert len(frame), name
        settings = settings_of(group, name)
        if settings is not None:
            assert set(settings.tabled(group)) <= set(frame.columns), name
    assert len(ls.to_dataframe(groups["plane"])) == groups["plane"].sizes["axis"] * groups["plane"].sizes["weight"]


def test_other_dims_and_bounds(results):
    _, groups = results
    assert len(ls.to_dataframe(groups["spectrum"], over=["batch"])) == 12
    summary = ls.to_dataframe(groups["spectrum"], over=["statistic"])
    found = groups["spectrum"]["summary"]
    assert np.array_equal(summary["summary_low"], found.sel(bound="low").values, equal_nan=True)
    scalars = ls.to_dataframe(groups["trace"], over=())
    assert scalars["trace"].item() == groups["trace"]["trace"].item()
    with pytest.raises(ls.UserError, match="no dimension nonsense; there are batch"):
        ls.to_dataframe(groups["spectrum"], over=["nonsense"])
    with pytest.raises(ls.UserError, match="a whole file has one row per number"):
        ls.to_dataframe(groups, over=["batch"])


def test_a_row_a_number_with_its_interval(results):
    _, groups = results
    frame = ls.to_dataframe(groups)
    nep = frame[(frame["group"] == "spectrum") & (frame["symbol"] == "NEP")].iloc[0]
    assert [nep["value"], nep["low"], nep["high"]] == groups["spectrum"]["summary"].sel(statistic="nep").values.tolist()
    assert (nep["n"], nep["counts"]) == (12, "mini-batches")
    assert set(frame["group"]) == {"spectrum", "spectrum_per_layer", "top", "density", "trace", "surface"}


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "tex"])
def test_what_is_written_is_what_there_is(results, tmp_path, ending):
    folder, groups = results
    path = tmp_path / f"deep/x.{ending}"
    done = invoke("export", folder / "a.h5", "--group", "spectrum", "--out", path)
    assert done.returncode == 0, done.stderr
    truth = ls.to_dataframe(groups["spectrum"])
    if ending == "tex":
        assert path.read_text().count(r"\\") == len(truth) + 1
        return
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[ending](path)
    pd.testing.assert_frame_equal(read, truth, check_dtype=False, check_exact=ending != "json")


def test_json_keeps_what_is_not_finite_and_stays_json(tmp_path, results):
    _, groups = results
    values = groups["trace"]["trace_estimate"].copy(data=np.full(groups["trace"].sizes["probe"], np.nan))
    values[0], values[1] = np.inf, -np.inf
    ls.save(tmp_path / "x.h5", trace=groups["trace"].assign(trace_estimate=values))
    assert invoke("export", tmp_path / "x.h5", "--group", "trace", "--out", tmp_path / "x.json").returncode == 0

    def refuse(constant):
        raise AssertionError(constant)

    rows = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert [row["trace_estimate"] for row in rows[:3]] == ["Infinity", "-Infinity", "NaN"]


def test_the_numbers_of_several_files_as_a_table_for_latex(results, tmp_path):
    folder, _ = results
    path = tmp_path / "x.tex"
    assert invoke("export", folder / "a.h5=A & Co", folder / "b_c.h5", "--numbers", "--out", path).returncode == 0
    lines = path.read_text().splitlines()
    assert lines[:3] == [r"\begin{tabular}{lrr}", r"\toprule", r" & A \& Co & b\_c \\"]
    (nep,) = (line for line in lines if line.startswith("NEP "))
    assert nep.count("[") == 2
    assert lines.count(r"\midrule") == 6
    assert any(line.startswith("trace ") and r"$\pm$" in line for line in lines)
    assert any(line.endswith(r"& - \\") for line in lines)  # what the second has not
    assert booktabs([["-1.5e+04 [-2, 3.5]", "net-1 of lr1e-4"]]).splitlines()[2] == (
        r"$-1.5 \times 10^{4}$ [$-2$, 3.5] & net-1 of lr1e-4 \\"
    )
    only = tmp_path / "y.csv"
    assert invoke("export", folder / "a.h5", "--numbers", "--group", "trace", "--out", only).returncode == 0
    assert set(pd.read_csv(only)["group"]) == {"trace"}


def test_what_cannot_be_exported_is_one_line(results, tmp_path):
    folder, _ = results
    refused(
        invoke("export", folder / "none.h5", "--out", tmp_path / "x.txt"), "must end in one of"
    )  # before it is read
    refused(invoke("export", folder / "b_c.h5", "--out", tmp_path / "x.csv"), "no group 'surface'")
    refused(invoke("export", folder / "a.h5", folder / "b_c.h5", "--out", tmp_path / "x.csv"), "--numbers")
    refused(invoke("export", "--out", tmp_path / "x.csv"), "needs a results file")
    command = ("export", folder / "a.h5", "--group", "spectrum", "--over", "batch,none", "--out", tmp_path / "x.csv")
    refused(invoke(*command), "no dimension none")
    assert not list(tmp_path.iterdir())


def test_in_a_notebook_numbers_are_a_table_and_text_is_text(trained, tmp_path):
    subject = ls.open(trained, data="digits", samples=32)
    subject.label = "<b>net</b>"
    result = subject.run(ls.Trace(products=12, estimator="hutchinson"))
    shown = result._repr_html_()
    assert "<td>trace</td>" in shown
    assert "12 probes" in shown or "±" in shown
    assert "<th>&lt;b&gt;net&lt;/b&gt;</th>" in shown
    assert "trace: done yes" in shown
