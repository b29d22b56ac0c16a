"""Files of before: read, said, and continued, whatever settings have come since."""

import json

import numpy as np
import pytest
from helpers import ROOT

import landscape as ls
from landscape import store
from landscape.catalogue import settings_of
from landscape.store.units import refuse_other
from landscape.study.words import describe, table

STORED = sorted((ROOT / "results" / "study").glob("*.h5"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_settings_of_stored_results_are_read_back_and_asked_for_again(path):
    """The files of results/study were written before settings were classes."""
    groups = store.load(path)
    assert path.stem in table({path.stem: groups})
    for name, group in groups.items():
        settings = settings_of(group, name)
        if settings is None:
            continue
        assert describe(name, group).startswith(f"{name}: ")
        config = {settings.formerly.get(k, k): v for k, v in group.attrs["config"].items()}
        known = {k: v for k, v in json.loads(json.dumps(settings.asdict())).items() if k in config}
        if settings.name != "surface":  # whose configuration has ranges and counts in the place of settings
            assert known == {k: config[k] for k in known}
        else:
            assert config["plane"]["directions"] == "random", "once said to be its kind"
        asked = {**config, **{k: v for k, v in settings.asdict().items() if k not in settings.unstored}}
        completed = settings._completed(group, {"objective": config["objective"]})
        if settings.name not in ("surface", "test"):
            refuse_other(completed.attrs["config"], json.loads(json.dumps(asked)))


def test_a_new_setting_and_a_new_variable_leave_an_old_file_usable(mlp, points, tmp_path):
    objective = ls.Objective(mlp, points)
    spectrum = ls.hessian_spectrum(objective, k=2, batch_size=16)
    config = spectrum.attrs["config"]
    old = spectrum.drop_vars("complete").assign_attrs(
        config={k: v for k, v in config.items() if k not in ("second_look", "max_basis")}
    )
    ls.save(tmp_path / "old.h5", spectrum=old)
    again = ls.hessian_spectrum(objective, k=2, batch_size=16, partial=ls.load(tmp_path / "old.h5")["spectrum"])
    np.testing.assert_array_equal(again["eigenvalue"], spectrum["eigenvalue"])
    assert again.attrs["config"] == config
    with pytest.raises(ls.UserError, match="`second_look`: no there, yes asked"):
        ls.hessian_spectrum(objective, k=2, batch_size=16, second_look=True, partial=old)
