"""Sessions: runs, input checks, the process-wide state that they must not disturb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from small_nets import write_two_input_net
from tunebank import compile_model
from tunebank.errors import UsageError
from tunebank.runtime import Session


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("session")
    model = write_two_input_net(folder / "two.onnx")
    bank = str(folder / "bank.db")
    compile_model(model, folder / "out", banks=[bank], time_budget_seconds=0)
    return Session(folder / "out")


def _feed() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((2, 8)).astype("float32") for name in "ab"}


def test_outputs_come_in_order_and_by_name(session: Session) -> None:
    feed = _feed()
    total, product = session.run(None, feed)
    np.testing.assert_allclose(total, feed["a"] + feed["b"], rtol=1e-6)
    np.testing.assert_allclose(product, feed["a"] * feed["b"], rtol=1e-6)
    (only,) = session.run(["p"], feed)
    np.testing.assert_array_equal(only, product)


def test_describes_itself(session: Session) -> None:
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("a", (2, 8), "tensor(float)"),
        ("b", (2, 8), "tensor(float)"),
    ]
    assert [o.name for o in session.get_outputs()] == ["s", "p"]


def test_input_that_is_not_contiguous(session: Session) -> None:
    feed = _feed()
    strided = np.zeros((8, 4), np.float32).T[::2]
    strided[:] = feed["a"]
    assert not strided.flags.c_contiguous
    for one, other in zip(
        session.run(None, {**feed, "a": strided}), session.run(None, feed), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_results_are_the_callers_own(session: Session) -> None:
    feed = _feed()
    first = session.run(None, feed)
    kept = [array.copy() for array in first]
    session.run(None, {name: 3 * array for name, array in feed.items()})
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "input 'b' is missing; inputs: a, b"),
        ({"c": np.zeros((2, 8), np.float32)}, "no input 'c'; inputs: a, b"),
        ({"a": np.zeros((2, 9), np.float32)}, r"input 'a' has shape \(2, 9\), .* \(2, 8\)"),
        ({"a": np.zeros((2, 8))}, r"input 'a' is of float64, .*\.astype\(\"float32\"\)"),
    ],
)
def test_bad_feeds(session: Session, change: dict[str, object], message: str) -> None:
    feed = {k: v for k, v in {**_feed(), **change}.items() if v is not None}
    with pytest.raises(UsageError, match=message) as caught:
        session.run(None, feed)
    assert "\n" not in str(caught.value)


def test_renamed_input_of_the_same_count(session: Session) -> None:
    feed = _feed()
    with pytest.raises(UsageError, match="no input 'z'"):
        session.run(None, {"a": feed["a"], "z": feed["b"]})


def test_unknown_output(session: Session) -> None:
    with pytest.raises(UsageError, match="no output 'q'; outputs: s, p"):
        session.run(["q"], _feed())


def test_thread_count_out_of_range(session: Session, tmp_path: Path) -> None:
    folder = Path(session.manifest.model_path).parent / "out"
    for threads in (0, 10_000):
        with pytest.raises(UsageError, match=f"can't run on {threads} threads"):
            Session(folder, threads=threads)
