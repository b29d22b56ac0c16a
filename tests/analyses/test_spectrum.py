import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import dense_hessian, raising, unchanged

import landscape as ls
from landscape.analyses.summaries import statistics_of
from landscape.curvature.capacity import group_size, that_fit
from landscape.curvature.operators import Curvature
from landscape.study.words import describe, table


@pytest.fixture
def objective(mlp, points):
    return ls.Objective(mlp, points, weight_decay=0.2, dtype=torch.float64)


def test_per_mini_batch_eigenvalues_are_the_true_ones(mlp, objective):
    with unchanged(mlp):
        spectrum = ls.hessian_spectrum(objective, k=4, batch_size=16, tol=1e-8)
    assert spectrum["eigenvalue"].dims == ("batch", "rank")
    assert spectrum.sizes["batch"] == 3  # 50 // 16
    for i, (x, y) in enumerate(objective.minibatches(16)):
        truth = np.linalg.eigvalsh(dense_hessian(objective, x, y))
        truth = truth[np.argsort(-np.abs(truth))][:4]
        np.testing.assert_allclose(spectrum["eigenvalue"].values[i], truth, rtol=1e-9)
        nll = torch.nn.functional.cross_entropy(copy.deepcopy(mlp).double().eval()(x), y)
        assert float(spectrum["nll"][i]) == pytest.approx(nll.item(), rel=1e-12)
    assert spectrum["converged"].all()
    assert (spectrum["products"] > 4).all()
    of_an_older_version = spectrum.drop_vars("nll")
    again = ls.hessian_spectrum(objective, k=4, batch_size=16, tol=1e-8, partial=of_an_older_version)
    assert again["nll"].isnull().all(), "what an older version did not store is not known"
    assert again["eigenvalue"].identical(spectrum["eigenvalue"])


@pytest.mark.parametrize("which", ["LM", "BE"])
def test_whole_data_top(mlp, objective, which):
    with unchanged(mlp):
        top = ls.hessian_top(objective, k=4, which=which, tol=1e-8)
    truth = np.linalg.eigvalsh(dense_hessian(objective))
    wanted = truth[np.argsort(-np.abs(truth))][:4] if which == "LM" else truth[[-1, -2, 1, 0]]
    np.testing.assert_allclose(top["eigenvalue"], wanted, rtol=1e-7, atol=1e-9)


def by_magnitude(H, k):
    e = np.linalg.eigvalsh(H)
    return e[np.argsort(-np.abs(e))][:k]


def test_per_stage_and_per_layer_are_diagonal_blocks(mlp, objective):
    names = [name for name, p in mlp.named_parameters() for _ in range(p.numel())]
    with unchanged(mlp):
        spectrum = ls.hessian_spectrum(objective, k=3, batch_size=16, batches=2, per="layer", tol=1e-8)
    assert spectrum["eigenvalue"].dims == ("part", "batch", "rank")
    assert spectrum["part"].values.tolist() == ["0", "3"]
    assert spectrum["summary"].dims == ("part", "statistic", "bound")
    top = ls.hessian_top(objective, k=3, per="stage", tol=1e-8)
    for part in ("0", "3"):
        rows = [i for i, name in enumerate(names) if name.startswith(part)]
        for i, batch in enumerate(objective.minibatches(16, 2)):
            H = dense_hessian(objective, *batch)[np.ix_(rows, rows)]
            np.testing.assert_allclose(spectrum["eigenvalue"].sel(part=part, batch=i), by_magnitude(H, 3), rtol=1e-8)
        H = dense_hessian(objective)[np.ix_(rows, rows)]
        np.testing.assert_allclose(top["eigenvalue"].sel(part=part), by_magnitude(H, 3), rtol=1e-7, atol=1e-10)


def test_a_part_of_fewer_parameters_than_eigenvalues(objective):
    spectrum = ls.hessian_spectrum(objective, k=5, batches=1, parameters="3.bias")
    assert np.isfinite(spectrum["eigenvalue"].values[0]).tolist() == [True, True, False, False, False]
    assert spectrum["complete"].all()


def test_layers_of_one_parameter_and_of_fewer_than_k():
    """PReLU's slope: of one parameter, the gradient and a random start may be each other's opposite."""
    x, y = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
    for seed in range(6):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.PReLU(), torch.nn.Linear(5, 3))
        objective = ls.Objective(model, [(x, y)], dtype=torch.float64)
        spectrum = ls.hessian_spectrum(objective, k=5, batch_size=4, per="layer", tol=1e-8, seed=seed)
        H = [dense_hessian(objective, *batch)[25, 25] for batch in objective.minibatches(4)]
        slope = spectrum.sel(part="1")
        np.testing.assert_allclose(slope["eigenvalue"][:, 0], H, rtol=1e-8, atol=1e-12)
        nep, ape, largest, smallest = slope["summary"].sel(bound="estimate").values
        assert nep == (np.array(H) < 0).mean()
        assert largest == pytest.approx(np.median(H), rel=1e-8, abs=1e-12)
        assert smallest == pytest.approx(np.median(H), rel=1e-8, abs=1e-12)
        assert np.isnan(ape) == (nep == 1)
    top = ls.hessian_top(objective, k=5, per="layer", tol=1e-8)
    assert float(top["eigenvalue"].sel(part="1")[0]) == pytest.approx(dense_hessian(objective)[25, 25], rel=1e-8)
    few = ls.hessian_spectrum(objective, k=5, batch_size=4, parameters="2.bias", tol=1e-8)
    assert np.isfinite(few["summary"].sel(statistic="largest", bound="estimate"))


def test_the_split_adds_up_and_is_the_gauss_newton_share(objective):
    spectrum = ls.hessian_spectrum(objective, k=4, batches=2, tol=1e-9, ggn_part=True)
    x, y = objective.minibatches(16)[0]
    G = np.stack([Curvature(objective, x, y, kind="ggn")(row).numpy() for row in torch.eye(65, dtype=torch.float64)])
    values, vectors = np.linalg.eigh(dense_hessian(objective, x, y))
    for value, share in zip(spectrum["eigenvalue"].values[0], spectrum["ggn_part"].values[0], strict=True):
        u = vectors[:, np.abs(values - value).argmin()]
        assert share == pytest.approx(u @ G @ u, rel=1e-6)
    assert (ls.hessian_spectrum(objective, batches=2, kind="ggn")["eigenvalue"] > 0).all()


@pytest.mark.parametrize("kind", ["hessian", "ggn", "residual"])
def test_in_lockstep_as_one_by_one(objective, kind):
    one, together = (
        ls.hessian_spectrum(objective, k=3, batch_size=10, kind=kind, tol=1e-7, lockstep=g, ggn_part=kind == "hessian")
        for g in (1, 2)
    )
    for name in one.data_vars:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(together[name], one[name], rtol=1e-5, atol=1e-10)
        else:
            np.testing.assert_array_equal(together[name], one[name])


def test_pyhessian_on_the_same_mini_batches(mlp, objective):
    pytest.importorskip("pyhessian")
    settings = {"k": 3, "batches": 2, "method": "pyhessian"}
    with unchanged(mlp):
        theirs = ls.hessian_spectrum(objective, **settings)
    ours = ls.hessian_spectrum(objective, k=3, batches=2, tol=1e-6)
    np.testing.assert_allclose(theirs["eigenvalue"][:, 0], ours["eigenvalue"][:, 0], rtol=0.02)
    for i, (x, y) in enumerate(objective.minibatches(16, 2)):
        true = np.linalg.eigvalsh(dense_hessian(objective, x, y))
        distance = np.abs(theirs["eigenvalue"].values[i][:, None] - true).min(axis=1)
        assert (distance <= theirs["residual"].values[i] + 1e-12).all()
    assert (theirs["products"] > ours["products"]).all()
    assert ls.hessian_spectrum(objective, **settings).identical(theirs)
    with pytest.raises(ls.UserError, match="largest magnitudes of the whole Hessian only"):
        ls.hessian_spectrum(objective, which="SA", method="pyhessian")


@pytest.mark.parametrize("which", ["LM", "SA"])
def test_top_in_little_memory(mlp, objective, which):
    with unchanged(mlp):
        top = ls.hessian_top(objective, k=3, which=which, max_basis=8, chunk_size=7, tol=1e-6, max_products=2000)
    e = np.linalg.eigvalsh(dense_hessian(objective))
    np.testing.assert_allclose(top["eigenvalue"], by_magnitude(dense_hessian(objective), 3) if which == "LM" else e[:3],
                               rtol=1e-6)  # fmt: skip
    assert (top["residual"] <= 1.01e-6 * abs(top["eigenvalue"])).all()
    assert top["converged"].all()


def test_a_series_is_each_checkpoint_and_goes_on(mlp, points):
    def objective(scale):
        torch.manual_seed(0)
        with torch.no_grad():
            for p in mlp.parameters():
                p.mul_(scale)
        return ls.Objective(mlp, points, dtype=torch.float64)

    objectives = {f"epoch{i}": objective(scale) for i, scale in enumerate((1.0, 1.5, 1.2))}
    kept = []
    settings = {"k": 2, "batch_size": 10, "save_every": 0.0}
    whole = ls.hessian_series(objectives, save=lambda d: kept.append(d.copy(deep=True)), **settings)
    assert whole["eigenvalue"].dims == ("checkpoint", "batch", "rank")
    for label, one in objectives.items():
        alone = ls.hessian_spectrum(one, k=2, batch_size=10)
        np.testing.assert_array_equal(whole["eigenvalue"].sel(checkpoint=label), alone["eigenvalue"])
        np.testing.assert_array_equal(whole["summary"].sel(checkpoint=label), alone["summary"])
    for partial in (kept[0], kept[7], whole):
        assert ls.hessian_series(objectives, partial=partial, **settings).identical(whole)
    with pytest.raises(ls.UserError, match="other settings"):
        ls.hessian_series(objectives, partial=whole, **{**settings, "k": 3})
    with pytest.raises(ls.UserError, match="epoch2, not asked for now"):
        ls.hessian_series({k: objectives[k] for k in ("epoch0", "epoch1")}, partial=whole, **settings)
    with pytest.raises(ls.UserError, match="at least one"):
        ls.hessian_series({})


def test_memory_does_not_grow_over_200_mini_batches():
    """In a process of its own, whose peak is measured: 200 mini-batches take what 40 take."""
    code = """
import resource, torch, landscape as ls
torch.manual_seed(0)
x, y = torch.randn(800, 1, 8, 8), torch.randint(0, 10, (800,))
objective = ls.Objective(ls.create_model("resnet8", 10, 8, 1), [(x, y)])
peaks = []
for count in (40, 200):
    ls.hessian_spectrum(objective, k=1, batch_size=4, batches=count, max_products=2)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert int(result.stdout) < 8 * 1024, f"{result.stdout} KiB more"


def gathered(eigenvalue):
    return xr.Dataset({"eigenvalue": (("batch", "rank"), np.array(eigenvalue, float))})


def test_summary_by_hand():
    e = [[4, -1], [2, 1], [6, -3], [3, 1]] * 2
    result = ls.summarize(gathered(e))
    s = result["summary"]
    assert s.sel(statistic="nep", bound="estimate") == 4 / 16
    assert s.sel(statistic="ape", bound="estimate") == pytest.approx((4 + 2 + 1 + 6 + 3 + 1) / 6)
    assert s.sel(statistic="largest", bound="estimate") == 3.5
    assert s.sel(statistic="smallest", bound="estimate") == 0
    assert (s.sel(bound="low") < s.sel(bound="estimate")).all()
    assert (s.sel(bound="estimate") < s.sel(bound="high")).all()
    assert s.attrs["n_counts"] == "mini-batches"
    assert result["summarized"] == 8
    assert np.isnan(result["unconverged"])  # not said


@pytest.mark.parametrize(("nep", "batches"), [(0.004, 16), (0.018, 16), (0.3, 40)])
def test_intervals_cover(nep, batches):
    """95 % intervals of NEP and APE, with a rare or frequent negative one and a heavy tail."""
    rng = np.random.default_rng(0)
    ape, repetitions = np.exp(0.5), 100
    covered = np.zeros(2)
    for _ in range(repetitions):
        e = np.exp(rng.normal(size=(batches, 1))) * np.where(rng.random((batches, 5)) < nep, -1, 1)
        s = ls.summarize(gathered(e))["summary"].sel(statistic=["nep", "ape"]).values
        covered += (s[:, 1] <= (nep, ape)) & ((nep, ape) <= s[:, 2])
    assert (covered >= 0.88 * repetitions).all(), covered


def test_none_seen_among_few_is_not_none_at_all():
    e = np.random.default_rng(0).uniform(1, 2, (32, 5))
    for sign in (1, -1):
        estimate, low, high = ls.summarize(gathered(sign * e))["summary"].sel(statistic="nep").values
        assert estimate == (sign < 0)
        assert 0.05 < high - low < 0.1


@pytest.mark.parametrize(
    ("eigenvalue", "nep", "ape", "n"),
    [
        ([[1, 2], [1, 2]], 0, 1.5, 2),
        ([[-1, -2], [-1, -3]], 1, np.nan, 2),
        ([[np.nan, 1], [2, 2]], 0, 2, 1),
        ([[np.inf, 1], [-2, 2]], 0.5, 2, 1),
        ([[3, np.nan], [-1, np.nan]], 0.5, 3, 2),
        ([[np.nan, np.nan]], np.nan, np.nan, 0),
    ],
)
def test_summary_of_one_sided_and_broken_spectra(eigenvalue, nep, ape, n):
    result = ls.summarize(gathered(eigenvalue))
    s = result["summary"]
    np.testing.assert_equal(s.sel(statistic=["nep", "ape"], bound="estimate").values, [nep, ape])
    assert s.sel(bound=["low", "high"]).isnull().all()  # nothing is known of how two mini-batches differ
    assert result["summarized"] == n


def test_what_has_not_converged_is_counted(objective):
    """Mini-batches cut off at 6 products: their statistics are marked, in the table and in words."""
    settings = {"k": 5, "batch_size": 4, "tol": 1e-6}
    early, late = (ls.hessian_spectrum(objective, **settings, batches=n, max_products=m) for n, m in ((4, 6), (8, 200)))
    assert float(early["unconverged"]) == pytest.approx(1 - early["converged"].mean())
    assert early["unconverged"] > 0.5
    assert late["unconverged"] == 0
    lines = table({"early": {"spectrum": early}, "late": {"spectrum": late}}).splitlines()
    assert lines[1].count("*") == 4  # largest, smallest, NEP, APE
    assert "[" not in lines[1]
    assert "+-" not in lines[1]
    assert "*" not in lines[2]
    assert lines[2].count("[") == 4
    assert lines[3].startswith(f"* early: {float(early['unconverged']):.1%} of these eigenvalues have not converged")
    assert lines[4] == "no interval and no standard error is given for fewer than 8 mini-batches"
    assert "every statistic of them is marked *" in describe("spectrum", early)
    assert "marked" not in describe("spectrum", late)


def test_a_stored_summary_is_made_anew(objective):
    """A file of another version has other intervals: what is shown are this one's, of its eigenvalues."""
    spectrum = ls.hessian_spectrum(objective, k=3, batch_size=5, batches=8)
    old = spectrum.drop_vars(["summarized", "unconverged"])
    old["summary"] = 0 * old["summary"]
    assert table({"net": {"spectrum": old}}) == table({"net": {"spectrum": spectrum}})
    assert statistics_of(spectrum)["summary"].identical(spectrum["summary"])
    assert statistics_of(spectrum.drop_vars("summary")) is None  # an unfinished one


@pytest.mark.parametrize("analysis", ["spectrum", "density"])
def test_interrupted_and_resumed_equals_uninterrupted(mlp, points, objective, analysis):
    def run(objective, **more):
        if analysis == "spectrum":
            return ls.hessian_spectrum(objective, k=2, batch_size=10, **more)
        return ls.spectral_density(objective, probes=4, steps=3, **more)

    whole = run(objective)
    after = {"spectrum": 6, "density": 20}[analysis]
    broken = ls.Objective(raising(mlp, after), points, weight_decay=0.2, dtype=torch.float64)
    kept = []
    with pytest.raises(RuntimeError, match="broke"):
        run(broken, save=lambda d: kept.append(d.copy(deep=True)))
    assert 0 < kept[-1]["done"].sum() < kept[-1]["done"].size
    assert run(objective, partial=kept[-1]).identical(whole)


def test_a_loss_that_is_not_finite_gives_nan(mlp, points):
    with torch.no_grad():
        mlp[3].weight.fill_(torch.nan)
    spectrum = ls.hessian_spectrum(ls.Objective(mlp, points), k=2, batches=2)
    assert spectrum["eigenvalue"].isnull().all()
    assert not spectrum["converged"].any()
    assert spectrum["done"].all()


def test_bad_requests(objective):
    with pytest.raises(ls.UserError, match="50 frozen examples make 3"):
        ls.hessian_spectrum(objective, batches=4)


def test_how_many_mini_batches_a_gpus_memory_holds():
    """A ResNet-50 with 200 products: a basis of 200 rows beside 128 that it grew out of: one in half of 80 GB."""
    v = torch.empty(25_557_032, device="meta")
    gigabyte, rows = 2**30, 200 + 128
    for memory, k, product in ((40, 5, 2), (200, 5, 2), (2000, 20, 8)):
        count = that_fit(memory * gigabyte, product * gigabyte, k, 200, v)
        each = product * gigabyte + (rows + k) * v.numel() * 4
        assert count == 1 or count * each <= memory * gigabyte
        assert (count + 1) * each > 0.9 * memory * gigabyte
    assert that_fit(40 * gigabyte, 2 * gigabyte, 5, 20, v) > 5 * that_fit(40 * gigabyte, 2 * gigabyte, 5, 200, v)


def test_the_group_on_a_gpu(monkeypatch, objective, points):
    """Emulated: what torch.cuda reports of a GPU with 4 MiB free, of which a product takes 16 KiB."""
    reported = iter(range(0, 1 << 20, 1 << 14))
    for name, value in {
        "reset_peak_memory_stats": lambda _: None,
        "memory_allocated": lambda _: next(reported),
        "max_memory_allocated": lambda _: next(reported),
        "mem_get_info": lambda _: (1 << 22, 1 << 23),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    class IntoZeros(torch.nn.Linear):
        def forward(self, x):
            y = torch.zeros(len(x), self.out_features, dtype=x.dtype)
            y[:] = super().forward(x)
            return y

    kept_apart = ls.Objective(IntoZeros(6, 2), points)
    for one in (objective, kept_apart):
        one.device = torch.device("cuda")
    short, long = (group_size(objective, 10, 3, rows, "hessian", None) for rows in (5, 60))
    assert short == that_fit(1 << 21, 1 << 14, 3, 5, torch.empty(65, dtype=torch.float64)) > long > 1
    with pytest.warns(RuntimeWarning, match="one at a time"):
        assert group_size(kept_apart, 10, 3, 5, "hessian", None) == 1


@pytest.mark.parametrize("lockstep", [1, 2])
def test_a_second_look_at_mini_batches_changes_no_true_value(objective, lockstep):
    settings = {"k": 3, "batch_size": 10, "batches": 2, "tol": 1e-7, "lockstep": lockstep}
    once = ls.hessian_spectrum(objective, **settings)
    twice = ls.hessian_spectrum(objective, second_look=True, **settings)
    np.testing.assert_allclose(twice["eigenvalue"], once["eigenvalue"], rtol=1e-6)
    assert (twice["products"] > once["products"]).all()
    assert (twice["products"] <= 2 * once["products"]).all()
    assert twice.attrs["config"]["second_look"]
    top = ls.hessian_top(objective, k=3, tol=1e-7, second_look=True)
    np.testing.assert_allclose(top["eigenvalue"], ls.hessian_top(objective, k=3, tol=1e-7)["eigenvalue"], rtol=1e-6)
