"""Options from a file, and what is asked for outright before them."""

from helpers import invoke, refused

import landscape as ls


def test_a_table_a_command_and_options_by_name(trained, tmp_path):
    config, out = tmp_path / "study.toml", tmp_path / "x.h5"
    config.write_text('[spectrum]\nbatches = 2\ntop = 1\nsamples = 64\nwhich = "LA"\nquiet = true\n')
    command = ("spectrum", trained, "--config", config, "--out", out)
    assert invoke(*command, "--top", 2).returncode == 0
    spectrum = ls.load(out)["spectrum"]
    assert dict(spectrum.sizes) | {"batch": 2, "rank": 2} == dict(spectrum.sizes)
    assert spectrum.attrs["config"]["which"] == "LA"


def test_a_file_that_is_none_is_one_line(trained, tmp_path):
    command = ("spectrum", trained, "--out", tmp_path / "x.h5", "--config")
    refused(invoke(*command), "--config needs a TOML file")
    refused(invoke(*command, tmp_path / "none.toml"), "cannot be read as TOML")
    (tmp_path / "bad.toml").write_text("[spectrum\n")
    refused(invoke(*command, tmp_path / "bad.toml"), "bad.toml cannot be read as TOML")
    (tmp_path / "other.toml").write_text("[spectrum]\nnonsense = 1\n")
    refused(invoke(*command, tmp_path / "other.toml"), "nonsense")
    (tmp_path / "range.toml").write_text('[spectrum]\nwhich = "XX"\n')
    refused(invoke(*command, tmp_path / "range.toml"), "XX", "range.toml")
    assert not (tmp_path / "x.h5").exists()
