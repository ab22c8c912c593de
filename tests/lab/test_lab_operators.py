"""The survey of operators: outcomes of cases, and a survey that goes on where it was left."""

from __future__ import annotations

import json
import sys

import numpy as np

from tunebank.lab.operator_cases import PASSED, REFUSED, SKIPPED, cases, difference, tried
from tunebank.lab.operators import main


def test_outcomes():
    assert tried(cases()["test_reduce_max_bool_inputs"]).outcome == PASSED
    assert tried(cases()["test_det_nd"]).outcome == REFUSED
    assert tried(cases()["test_adam"]).outcome == SKIPPED


def test_a_refusal_names_operator_and_node():
    assert tried(cases()["test_det_nd"]).reason == "ModelError: TVM lacks operator Det (node 'y')"


def test_differences_are_relative_to_the_results():
    large = np.array([1e6, 1.0], np.float32)
    assert difference([large + np.float32(0.1)], [large]) == ""
    assert "1 of 2 differ; at (1,)" in difference([large * [1, 5]], [large.astype(np.float64)])
    assert "float64" in difference([large.astype(np.float64)], [large])
    assert "1 of 2 differ" in difference([np.array([1, 2])], [np.array([1, 3])])


def test_a_survey_goes_on_where_it_was_left(tmp_path, monkeypatch, capsys):
    results = tmp_path / "results.jsonl"
    done = {"case": "test_relu", "operator": "Relu", "outcome": "crashed", "reason": "once"}
    results.write_text(json.dumps(done) + "\n")
    monkeypatch.setattr(sys, "argv", ["it", "--results", str(results), "--only", "test_relu"])
    main()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["case"] for line in lines].count("test_relu") == 1
    assert {line["outcome"] for line in lines[1:]} == {"passed"}
    assert "Relu: once" in capsys.readouterr().out
