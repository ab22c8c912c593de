"""Arrays of `tunebank run`."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tunebank.cli.arrays import feed_for, read_array, write_arrays
from tunebank.errors import UsageError

X = SimpleNamespace(name="x", shape=(2, 3), dtype="float32", limit=None)
IDS = SimpleNamespace(name="ids", shape=(4,), dtype="int64", limit=7)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self._trap,))  # type: ignore[return-value]


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "x.npy"
    array = np.empty(1, dtype=object)
    array[0] = Hostile(trap)
    np.save(path, array, allow_pickle=True)
    with pytest.raises(UsageError, match=r"x\.npy: not an array"):
        read_array(path)
    path.write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(UsageError, match=r"x\.npy: not an array"):
        read_array(path)
    assert not trap.exists()


def test_files_that_are_no_array(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_array(tmp_path / "none.npy")
    with pytest.raises(UsageError, match="not an array"):
        read_array(tmp_path)
    whole = tmp_path / "x.npy"
    np.save(whole, np.zeros((10, 10)))
    for size in (0, 20, 200):
        cut = tmp_path / "cut.npy"
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(UsageError, match="not an array"):
            read_array(cut)
    np.savez(tmp_path / "x.npz", np.zeros(1))
    with pytest.raises(UsageError, match="archive"):
        read_array(tmp_path / "x.npz")


def test_random_arrays_fill_what_is_not_given() -> None:
    given = {"x": np.ones((2, 3), "float32")}
    feed = feed_for([X, IDS], given, seed=3)
    assert feed["x"] is given["x"]
    assert feed["ids"].dtype == np.int64
    assert feed["ids"].shape == (4,)
    again = feed_for([X, IDS], {}, seed=3)
    np.testing.assert_array_equal(again["x"], feed_for([X, IDS], {}, seed=3)["x"])
    assert again["x"].dtype == np.float32


def test_bfloat16_goes_to_a_file_and_comes_back(tmp_path: Path) -> None:
    spec = SimpleNamespace(name="x", shape=(3,), dtype="bfloat16", limit=None)
    array = feed_for([spec], {}, seed=0)["x"]
    files = write_arrays(tmp_path, {"x": array})
    read = feed_for([spec], {"x": read_array(files["x"])}, seed=None)["x"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_an_input_without_array() -> None:
    with pytest.raises(UsageError, match="no array for ids; give --input"):
        feed_for([X, IDS], {"x": np.ones((2, 3))}, seed=None)


def test_outputs_go_to_files_in_the_folder_whatever_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    names = ["y", "a/b", "../../evil", "a_b", "", ".hidden", "/etc/passwd"]
    arrays = {name: np.full(2, index) for index, name in enumerate(names)}
    files = write_arrays(folder, arrays)
    assert len(set(files.values())) == len(names)
    assert {path.parent for path in files.values()} == {folder}
    assert sorted(folder.iterdir()) == sorted(files.values()), "no partial file is left"
    assert list(tmp_path.iterdir()) == [folder]
    for name, path in files.items():
        np.testing.assert_array_equal(np.load(path), arrays[name])


def test_a_folder_that_cant_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="name another folder"):
        write_arrays(tmp_path / "file", {"y": np.zeros(1)})
