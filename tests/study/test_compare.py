"""Networks compared, from files made by hand: by which ratio, over which units, at which loss; what is refused."""

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import invoke, refused
from made import E, config, spectrum

import landscape as ls
from landscape import store
from landscape.analyses.summaries import summarize
from landscape.runtime.errors import UserError


def evaluated(accuracy, nll, weights):
    numbers = {"accuracy": accuracy, "accuracy_sem": 0.01, "nll": nll, "nll_sem": 0.01, "examples": 300, "done": True}
    return xr.Dataset(numbers).assign_attrs(config=config(weights, analysis="test"))


def file(path, **groups):
    store.save(path, **groups)
    return path


def by_heading(comparison):
    return {row.heading: row for row in comparison.rows}


def test_twice_the_eigenvalues_on_the_same_mini_batches_are_a_ratio_of_2(tmp_path):
    a, b = file(tmp_path / "a.h5", spectrum=spectrum()), file(tmp_path / "b.h5", spectrum=spectrum(2 * E, "b"))
    rows = by_heading(ls.compare(a, b))
    assert list(rows) == ["training NLL", "largest", "smallest", "NEP", "APE"]
    assert rows["APE"].effect.value == pytest.approx(2)
    assert rows["APE"].effect.low <= 2 <= rows["APE"].effect.high
    assert rows["APE"].p < 0.01
    assert rows["NEP"].effect.value == 0
    assert rows["NEP"].effect.low < 0 < rows["NEP"].effect.high
    assert all("20 mini-batches, paired" in row.effect.how for row in rows.values())
    assert rows["training NLL"].p == 1
    back = by_heading(ls.compare(b, a))["APE"].effect
    assert (back.value, back.low, back.high) == pytest.approx(
        tuple(1 / x for x in (rows["APE"].effect.value, rows["APE"].effect.high, rows["APE"].effect.low))
    )


def test_other_mini_batches_are_not_paired_and_say_less(tmp_path):
    a, b = file(tmp_path / "a.h5", spectrum=spectrum()), file(tmp_path / "b.h5", spectrum=spectrum(2 * E, "b"))
    other = file(tmp_path / "other.h5", spectrum=spectrum(2 * E, "c", seed=1))
    paired, apart = (by_heading(ls.compare(a, one))["APE"] for one in (b, other))
    assert "as independent" in apart.effect.how
    assert apart.effect.high / apart.effect.low > paired.effect.high / paired.effect.low
    assert apart.effect.value == pytest.approx(paired.effect.value)


def test_trainings_are_one_sample_and_one_of_each_says_nothing_of_others(tmp_path):
    factors = {"a": (1.0, 1.1, 1.3), "b": (0.5, 0.6, 0.8)}
    files = {name: [file(tmp_path / f"{name}{i}.h5", spectrum=spectrum(f * E, f"{name}{i}")) for i, f in enumerate(fs)]
             for name, fs in factors.items()}  # fmt: skip
    several = ls.compare(groups=files)
    ape = by_heading(several)["APE"]
    logs = {name: np.log(fs) for name, fs in factors.items()}
    assert ape.effect.value == pytest.approx(np.exp(logs["b"].mean() - logs["a"].mean()))
    single = by_heading(ls.compare(files["a"][0], files["b"][0]))["APE"]
    assert ape.effect.high / ape.effect.low > single.effect.high / single.effect.low
    assert "over 3 and 3 trainings" in ape.effect.how
    assert "a (3 trainings)" in str(several)
    assert not any("nothing of other" in line for line in several.remarks)
    assert any("one training each" in line for line in ls.compare(files["a"][0], files["b"][0]).remarks)
    lone = ls.compare(files["a"][0], groups={"b": files["b"]})
    assert any("one training of a0" in line for line in lone.remarks)


def test_what_differs_is_refused_or_said(tmp_path):
    a = file(tmp_path / "a.h5", spectrum=spectrum(), test=evaluated(0.9, 0.3, "a"))
    other = file(tmp_path / "b.h5", spectrum=spectrum(E, "b", batch_size=32), test=evaluated(0.8, 0.4, "b"))
    found = ls.compare(a, other)
    assert {row.group for row in found.rows} == {"test"}
    assert any("batch size 16 / batch size 32" in line for line in found.differing)
    fewer = file(tmp_path / "c.h5", spectrum=spectrum(E[:12], "c"))
    assert any("20 mini-batches / 12 mini-batches" in line for line in ls.compare(a, fewer).differing)
    alone = file(tmp_path / "d.h5", spectrum=spectrum(E, "d", batch_size=32))
    with pytest.raises(UserError, match=r"no number in common.*batch size 32 / batch size 16"):
        ls.compare(alone, file(tmp_path / "e.h5", spectrum=spectrum()))
    with pytest.raises(UserError, match="same weights"):
        ls.compare(a, file(tmp_path / "again.h5", spectrum=spectrum()))
    with pytest.raises(UserError, match="two networks"):
        ls.compare(a)


def test_errors_alone_and_bounds_are_compared_too(tmp_path):
    """A standard error is all that is known of a trace; a residual bounds an eigenvalue for certain."""

    def top(value, weights):
        pairs = {"eigenvalue": ("rank", [value, 1.0]), "residual": ("rank", [0.5, 0.1]), "products": 3,
                 "converged": ("rank", [True, True]), "done": True, "complete": True}  # fmt: skip
        return xr.Dataset(pairs).assign_attrs(config=config(weights, analysis="top"))

    def trace(value, weights):
        scalars = {"trace": value, "trace_sem": 1.0, "done": ("probe", np.ones(30, bool))}
        return xr.Dataset(scalars).assign_attrs(config=config(weights, analysis="trace"))

    a = file(tmp_path / "a.h5", top=top(10.0, "a"), trace=trace(100.0, "a"))
    b = file(tmp_path / "b.h5", top=top(12.0, "b"), trace=trace(50.0, "b"))
    rows = by_heading(ls.compare(a, b))
    bound = rows["largest of the whole data"].effect
    assert (bound.value, bound.low, bound.high, bound.confidence) == pytest.approx((2, 1, 3, 1))
    ratio = rows["trace"].effect
    reach = 2.0452 * np.hypot(1 / 100, 1 / 50)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5 * np.exp(-reach), 0.5 * np.exp(reach)), 1e-3)
    assert "as independent" in ratio.how


def series(factor, weights, losses=(2.0, 1.0, 0.5), nll_of=lambda loss: np.full(20, loss)):
    """APE proportional to the loss: at equal losses the ratio of two is that of their factors."""
    each = [spectrum(factor * loss * np.abs(E), weights, nll=nll_of(loss)) for loss in losses]
    joined = xr.concat([one.drop_vars("summary") for one in each], "checkpoint", combine_attrs="drop")
    joined = joined.assign_coords(checkpoint=[f"epoch{i}" for i in range(len(losses))]).drop_vars(["statistic"])
    return joined.assign(summarize(joined)).assign_attrs(config=config(weights, analysis="series"))


def test_at_equal_losses_series_are_interpolated_and_never_extrapolated(tmp_path):
    a = file(tmp_path / "a.h5", series=series(1.0, "a"))
    b = file(tmp_path / "b.h5", series=series(3.0, "b", losses=(1.5, 0.7)))
    found = [row for row in ls.compare(a, b, losses=[0.8, 1.3]).rows if row.heading == "APE"]
    assert [row.at for row in found] == [0.8, 1.3]
    for row in found:
        assert row.effect.value == pytest.approx(3)
        assert row.of_first.value == pytest.approx(row.at * E.__abs__().mean())
    usual = ls.compare(a, b)
    assert all(0.7 < row.at < 1.5 for row in usual.rows)
    assert len({row.at for row in usual.rows}) == 3
    with pytest.raises(UserError, match=r"training NLL of 0.6 is not between .* 0.7 to 1.5"):
        ls.compare(a, b, losses=[0.6])
    apart = file(tmp_path / "c.h5", series=series(3.0, "c", losses=(0.3, 0.2)))
    with pytest.raises(UserError, match="no range in common"):
        ls.compare(a, apart)
    spectra = [file(tmp_path / f"{w}.h5", spectrum=spectrum(E, w)) for w in "de"]
    with pytest.raises(UserError, match="are for series"):
        ls.compare(*spectra, losses=[1.0])


def test_a_folder_is_a_training_and_what_its_files_have_is_compared_at_equal_losses(tmp_path):
    """Any analysis, here a trace that is 7 times the loss, and of the other network 14 times."""
    folders = []
    for name, factor in (("a", 7.0), ("b", 14.0)):
        for epoch, loss in ((1, 2.0), (2, 1.0), (10, 0.4)):
            scalars = {"trace": factor * loss, "trace_sem": 0.01, "done": ("probe", np.ones(30, bool))}
            trace = xr.Dataset(scalars).assign_attrs(config=config(f"{name}{epoch}", analysis="trace"))
            both = {"trace": trace, "spectrum": spectrum(E, f"{name}{epoch}", nll=np.full(20, loss))}
            file(tmp_path / name / f"epoch{epoch}.h5", **both)
        folders.append(tmp_path / name)
    found = ls.compare(*folders, losses=[0.7])
    (at,) = [row for row in found.rows if row.heading == "trace" and row.at == 0.7]
    assert at.effect.value == pytest.approx(2)
    assert at.of_first.value == pytest.approx(7 * 0.7)
    (end,) = [row for row in found.rows if row.heading == "trace" and row.at != 0.7]
    assert end.of_first.value == pytest.approx(7 * 0.4), "the last by its number, not by its letters"
    with pytest.raises(UserError, match="folder without results files"):
        ls.compare(folders[0], tmp_path)


def test_the_error_of_the_loss_is_part_of_the_error_at_that_loss(tmp_path):
    """The number follows the loss: where the loss is uncertain, so is the number at a given one."""
    rng = np.random.default_rng(1)
    noise = {scale: rng.lognormal(0, scale, 20) for scale in (0.01, 1.0)}
    widths = []
    for scale, by in noise.items():
        files = [file(tmp_path / f"{w}{scale}.h5",
                      series=series(1.0, f"{w}{scale}", nll_of=lambda loss, by=by: loss * by / by.mean()))
                 for w in "ab"]  # fmt: skip
        first = next(r for r in ls.compare(*files, losses=[0.8]).rows if r.heading == "APE").of_first
        widths.append(first.high / first.low)
    assert widths[1] > 1.2 * widths[0]


def test_tables_hold_the_same_numbers(tmp_path):
    a, b = (file(tmp_path / f"{n}_1.h5", spectrum=spectrum(f * E, n)) for n, f in (("a", 1), ("b", 2)))
    out = [tmp_path / "found" / f"t.{ending}" for ending in ("csv", "tex")]
    done = invoke("compare", a, b, "--out", out[0], "--out", out[1])
    assert done.returncode == 0, done.stderr
    found = ls.compare(a, b)
    assert str(found) in done.stdout
    shown = found._repr_html_()
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in shown.split("<tr>")[2:]]
    assert [row[0] for row in cells] == [row.heading for row in found.rows]
    assert [unescape(row[3]) for row in cells] == [str(row) for row in found.rows]
    frame = found.to_dataframe()
    read = pd.read_csv(out[0])
    assert list(read) == list(frame)
    for column in frame:
        if frame[column].dtype.kind in "fi":
            np.testing.assert_allclose(read[column], frame[column])
        else:
            assert read[column].astype(object).fillna("").tolist() == frame[column].tolist()
    assert frame.set_index("estimate").loc["APE", "effect"] == pytest.approx(2)
    tex = out[1].read_text()
    assert [tex.count(rule) for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert "a\\_1" in tex
    assert "%" not in tex.replace("\\%", "")
    assert len({line.count("&") - line.count("\\&") for line in tex.splitlines() if line.endswith("\\\\")}) == 1


def test_effects_are_drawn_where_they_are(tmp_path):
    files = [file(tmp_path / f"{n}.h5", spectrum=spectrum(f * E, n)) for n, f in (("a", 1), ("b", 2), ("c", 4))]
    found = ls.compare(*files)
    ratios, shares = found.plot().axes
    assert [label.get_text() for label in ratios.get_yticklabels()] == ["training NLL", "largest", "APE"]
    assert [label.get_text() for label in shares.get_yticklabels()] == ["NEP"]
    assert [list(line.lines[0].get_xdata()) for line in ratios.containers] == [
        [row.effect.value for row in found.rows if row.second == name and row.effect.compared == "ratio"]
        for name in ("b", "c")
    ]
    done = invoke("compare", *files, "--out", tmp_path / "effects.svg", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "effects.svg").read_text()
    refused(invoke("compare", *files, "--against", "gap", "--out", tmp_path / "x.png"), "test NLL")


def test_the_command_takes_groups_and_patterns_and_says_what_is_wrong(tmp_path):
    for name, f in (("a", 1.0), ("b", 2.0)):
        for i in range(2):
            file(tmp_path / f"{name}-{i}.h5", spectrum=spectrum(f * (1 + i / 9) * E, f"{name}{i}"))
    a0, a1, b = tmp_path / "a-0.h5", tmp_path / "a-1.h5", tmp_path / "b-*.h5"
    done = invoke("compare", "--group", f"plain={a0},{a1}", "--group", f"sam={b}")
    assert done.returncode == 0, done.stderr
    assert "sam against plain" in done.stdout
    assert "over 2 and 2 trainings" in done.stdout
    refused(invoke("compare", a0), "two networks")
    refused(invoke("compare", a0, a0), "a-0.h5", "twice")
    refused(invoke("compare", a0, "--group", "sam"), "NAME=FILE")
    refused(invoke("compare", a0, "--group", f"sam={tmp_path}/c-*.h5"), "c-*.h5")
    refused(invoke("compare", a0, a1, "--out", "table.xlsx"), "table.xlsx", ".csv")
    refused(invoke("compare", a0, "--group", f"a-0={a1}"), "name of a file")
    refused(invoke("compare", a0, a1, "--losses", "0.5"), "series")
    refused(invoke("compare", a0, a1, "--against", "gap"), "2 checkpoints")


def test_ranks_over_many_checkpoints(tmp_path):
    """APE and test error rise together, and the gap falls, in nine made-up networks."""
    files = [
        file(tmp_path / f"{i}.h5", spectrum=spectrum((1 + i) * np.abs(E), f"w{i}"),
             test=evaluated(0.9 - 0.01 * i, 1 - 0.05 * i, f"w{i}"))
        for i in range(9)
    ]  # fmt: skip
    found = ls.rank_correlations(*files)
    assert found.measures["APE"].value == pytest.approx(1)
    assert np.isnan(found.measures["NEP"].value), "the same in all"
    assert "test accuracy" not in found.measures
    gap = ls.rank_correlations(*files, against="gap").measures["APE"]
    assert (gap.value, gap.n) == (pytest.approx(-1), 9)
    assert -1 <= gap.low <= gap.high < 0
    done = invoke("compare", *files, "--against", "gap", "--out", tmp_path / "ranks.csv")
    assert "generalisation gap" in done.stdout
    assert len(pd.read_csv(tmp_path / "ranks.csv")) == len(found.measures)
    few = ls.rank_correlations(*files[:5])
    assert np.isnan(few.measures["APE"].low)
    assert any("fewer than 8" in line for line in few.remarks)
    bare = file(tmp_path / "bare.h5", spectrum=spectrum(E, "bare"))
    with pytest.raises(UserError, match="bare has no test accuracy"):
        ls.rank_correlations(*files, bare)
