"""The state of a unit beside a results file: whole and of the same configuration, or not used."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from landscape.runtime import files
from landscape.store.aside import Aside, beside, forget

CONFIG = {"analysis": "top", "k": 3}
STATE = {"Q 0": torch.arange(1000.0), "T": np.eye(5), "flag": np.array([True, False])}


def kept(path, config=CONFIG):
    files.say_once.cache_clear()
    return Aside(path, config, 0.0, bool).kept()


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "a.h5.top.unfinished"
    Aside(path, CONFIG, 0.0, bool).keep(STATE)
    return path


def test_it_is_read_as_it_was_written(written):
    state = kept(written)
    for name, value in STATE.items():
        assert np.array_equal(state[name], np.asarray(value))
        assert state[name].dtype == np.asarray(value).dtype


def test_none_is_none(tmp_path, capsys):
    assert kept(tmp_path / "none") is None
    assert Aside(None, {}, 0.0, bool).kept() is None
    assert capsys.readouterr().err == ""


def test_another_configuration_is_passed_over(written, capsys):
    assert kept(written, {**CONFIG, "k": 4}) is None
    assert "is of another configuration; it is passed over" in capsys.readouterr().err


def test_any_flipped_bit_and_any_cut_is_seen(written, capsys):
    whole = written.read_bytes()
    rng = np.random.default_rng(0)
    spoiled = 0
    for at in rng.integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        written.write_bytes(flipped)
        state = kept(written)
        if state is None:
            spoiled += 1
        else:  # in a name's date or the like: every number is what it was
            assert all(np.array_equal(state[name], np.asarray(value)) for name, value in STATE.items())
        written.write_bytes(whole[:at])
        assert kept(written) is None
    assert spoiled > 30
    assert "is damaged" in capsys.readouterr().err


class Armed:
    def __reduce__(self):
        return (print, ("executed",))


def member(name, payload, compression=zipfile.ZIP_STORED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as file:
        file.writestr("config.npy", saved(np.array(json.dumps({"format": 1, **CONFIG}, sort_keys=True))))
        file.writestr(f"{name}.npy", payload)
    return data.getvalue()


def saved(array):
    data = io.BytesIO()
    np.lib.format.write_array(data, array)
    return data.getvalue()


def huge():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return header.getvalue() + bytes(64)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a pickle", member("T", saved(np.array([Armed()], object)))),
        ("a bomb", member("T", saved(np.zeros(10**7)), zipfile.ZIP_DEFLATED)),
        ("a lie", member("T", huge())),
        ("no zip", b"PK" + bytes(100)),
        ("nothing", b""),
    ],
)
def test_what_is_not_plain_arrays_is_passed_over(name, content, tmp_path, capsys):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert kept(path) is None
    said = capsys.readouterr()
    assert "is damaged" in said.err
    assert "executed" not in said.out


def test_a_place_that_cannot_be_written_ends_no_search(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    aside = Aside(tmp_path / "file" / "below", CONFIG, 0.0, bool)
    files.say_once.cache_clear()
    aside.keep(STATE)
    assert "cannot write" in capsys.readouterr().err
    assert not aside.due()
    aside.keep(STATE)


def test_it_is_not_kept_more_often_than_asked_nor_than_writing_allows(tmp_path):
    often, seldom = (Aside(tmp_path / "x", CONFIG, every, bool) for every in (0.0, 1e6))
    assert often.due()
    assert not seldom.due()
    often._took = 1e6
    assert not often.due()


def test_states_of_what_is_done_are_removed_and_no_others(tmp_path):
    path = tmp_path / "a[1].h5"
    units = [(), (0,), (1,), (7,)]
    for group in ("top", "top_ggn"):
        for unit in units:
            beside(path, group, unit).write_text("")
    forget(path, "top", np.array([True, False]))
    left = {p.name for p in tmp_path.iterdir()}
    assert beside(path, "top", (0,)).name not in left
    assert len(left) == 7
    forget(path, "top", np.array(True))
    assert not beside(path, "top").exists()
    assert beside(path, "top_ggn").exists()
