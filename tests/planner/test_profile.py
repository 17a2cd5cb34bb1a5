"""Machine profiles: what is written is read again, and damaged or foreign files give one sentence."""

from __future__ import annotations

import json

import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.planner.profile import MachineProfile, read_profile, write_profile


def test_a_profile_is_read_as_it_was_written(tmp_path):
    profile = MachineProfile(name="here", ranks_per_node=4, gather_seconds=1e-9 / 3, hidden_share=0.25)
    write_profile(tmp_path / "machine.json", profile)
    assert read_profile(tmp_path / "machine.json") == profile


def test_a_profile_may_come_from_an_editor_of_windows(tmp_path):
    profile = MachineProfile(name="here")
    write_profile(tmp_path / "machine.json", profile)
    text = (tmp_path / "machine.json").read_text()
    for content in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode("utf-16")):
        (tmp_path / "other.json").write_bytes(content)
        assert read_profile(tmp_path / "other.json") == profile


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "other"}, "is no machine profile"),
        ({"version": 2}, "needs version 1 of the machine profile; it has version 2"),
        ({"gather_seconds": -1.0}, "gather_seconds: input should be greater than 0; got -1.0"),
        ({"gather_seconds": "fast"}, "gather_seconds: input should be a valid number; got 'fast'"),
        ({"hidden_share": 1.5}, "hidden_share: input should be less than or equal to 1"),
        ({"lanes": 0}, "lanes: input should be greater than or equal to 1"),
        ({"speed": 1.0}, "speed: extra inputs are not permitted"),
    ],
)
def test_bad_values_are_named(tmp_path, change, sentence):
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({**MachineProfile().model_dump(), **change}))
    with pytest.raises(InputError) as error:
        read_profile(path)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\x01", 100_000 * "[", '{"format": "sqd_mpi-machine"}'])
def test_damaged_files_give_one_sentence(tmp_path, text):
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        read_profile(path)


def test_missing_files_give_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot read the machine profile"):
        read_profile(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot write"):
        write_profile(tmp_path / "none" / "machine.json", MachineProfile())
