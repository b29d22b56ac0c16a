import numpy as np
import pytest
import torch
from helpers import invoke

import landscape as ls
from landscape import store
from landscape.analyses.dynamics import ANALYSES, Dynamics
from landscape.analyses.variance import Variance
from landscape.cli.inspect import Features
from landscape.store.units import Work
from landscape.study.drawing import draw_group


@pytest.fixture(scope="module")
def epochs():
    x = torch.randn(24, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = {}
    for epoch in (1, 2, 10):
        torch.manual_seed(epoch)
        loss = ls.Objective(ls.create_model("resnet8", 4, 16, 1), [(x, torch.zeros(24, dtype=torch.long))])
        found[f"epoch{epoch}"] = (loss, loss)
    return found


def test_each_checkpoint_has_what_the_analysis_says_of_it_alone(epochs):
    analysis = Dynamics(what="variance", images=24)
    result = analysis.run(epochs)
    rows = analysis.rows(result)
    for label, (loss, _) in epochs.items():
        alone = Variance(images=24)
        expected = alone.estimates(alone.run(loss))
        assert [e.name for e in rows[label]] == ["NLL", *(e.name for e in expected)]
        for found, own in zip(rows[label][1:], expected, strict=True):
            np.testing.assert_array_equal([found.value, found.low, found.high], [own.value, own.low, own.high])
        assert rows[label][0].value == pytest.approx(loss.evaluate().nll)
    assert draw_group(result, analysis.group).keys() == {"dynamics_variance"}


def test_cut_short_it_continues_to_the_same(epochs, tmp_path):
    analysis = Dynamics(what="variance", images=24)
    whole = analysis.run(epochs)
    some = analysis.run(epochs, work=Work(budget=0.0))
    assert some["done"].values.tolist() == [True, False, False]
    ls.save(tmp_path / "d.h5", dynamics_variance=some)
    stored = store.load(tmp_path / "d.h5")["dynamics_variance"]
    assert list(analysis.rows(stored)) == ["epoch1"]
    rest = analysis.run(epochs, stored=stored)
    np.testing.assert_array_equal(rest["quantities"].values, whole["quantities"].values)
    with pytest.raises(ls.UserError, match="`images`: 24 there, 20 asked"):
        Dynamics(what="variance", images=20).run(epochs, stored=stored)


def test_every_analysis_of_features_can_be_followed_and_is_looked_at():
    assert {type(a).name for a in Features().analyses()} == {"test", *ANALYSES}
    for what, cls in ANALYSES.items():
        assert isinstance(Dynamics(what=what, images=40).each, cls)
        assert Dynamics(what=what, images=40).each.images == 40


def test_inspect_gives_every_group_and_stops_in_its_budget(trained, tmp_path):
    out = tmp_path / "r8.h5"
    done = invoke("inspect", trained, "--images", 16, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    groups = store.load(out)
    assert {"test", "fourier", "variance", "similarity", "lesion", "robustness"} <= set(groups)
    assert all(groups[name]["done"].all() for name in ("fourier", "variance", "similarity", "lesion"))
    short = tmp_path / "short.h5"
    assert invoke("inspect", trained, "--images", 400, "--budget", "1s", "--out", short, "--quiet").returncode == 0
    assert 0 < store.load(short)["fourier"]["done"].sum() < 20
