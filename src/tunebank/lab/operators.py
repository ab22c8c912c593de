"""A survey of single operators: which of them compile, and give ONNX Runtime's numbers.

    python -m tunebank.lab.operators --results FILE [--only TEXT] [--again OUTCOME]

The `onnx` package has some 1900 small models, most with one operator. Each that ONNX Runtime runs
is rewritten, imported into TVM, compiled and run, in a process that may crash. Results are
appended to FILE, one JSON object a line; cases that stand there already are not run again. At
the end a table by operator is printed.

Inputs that real models have as constants - shapes, axes, pads, k - are constants here too, since
TVM compiles for fixed shapes.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tunebank.lab.operator_cases import (
    CRASHED,
    PASSED,
    REFUSED,
    SKIPPED,
    WRONG,
    Result,
    cases,
    operators_of,
    tried,
)

_TIMEOUT_SECONDS = 120


def main() -> None:
    """Runs the survey, or what is left of it."""
    parser = argparse.ArgumentParser(prog="python -m tunebank.lab.operators", description=__doc__)
    parser.add_argument("--results", type=Path, help="the file of results")
    parser.add_argument("--only", default="", help="cases whose name has this text in it")
    parser.add_argument("--again", default="", help="run cases of this outcome once more")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work()
        return
    if options.results is None:
        parser.error("--results FILE is needed")
    results = {result.case: result for result in _read(options.results)}
    todo = [
        name
        for name in cases()
        if options.only in name and (name not in results or results[name].outcome == options.again)
    ]
    with options.results.open("a") as file:
        for result in survey(todo):
            results[result.case] = result
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()
            if result.outcome not in (PASSED, SKIPPED):
                sys.stderr.write(f"{result.outcome:8} {result.case}: {result.reason[:150]}\n")
    sys.stdout.write("\n".join(_table(results.values())) + "\n")


def survey(names: Iterable[str]) -> Iterator[Result]:
    """Runs cases one after another in a process that is started again after a crash."""
    worker: subprocess.Popen[str] | None = None
    for name in names:
        if worker is None or worker.poll() is not None:
            worker = _started()
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(name + "\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], _TIMEOUT_SECONDS)
        line = worker.stdout.readline() if ready else ""
        if line:
            yield Result(**json.loads(line))
            continue
        worker.kill()
        code = worker.wait()
        reason = f"exit code {code}" if ready else f"no result after {_TIMEOUT_SECONDS} s"
        yield Result(name, operators_of(cases()[name].model), CRASHED, reason)
        worker = None
    if worker is not None:
        worker.kill()
        worker.wait()


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunebank.lab.operators", "--worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _work() -> None:
    """Reads names of cases, and writes a result for each."""
    out = sys.stdout
    sys.stdout = sys.stderr  # TVM's importer prints to it
    known = cases()
    for line in sys.stdin:
        result = tried(known[line.strip()])
        out.write(json.dumps(asdict(result)) + "\n")
        out.flush()


def _read(path: Path) -> Iterator[Result]:
    if path.exists():
        for line in path.read_text().splitlines():
            yield Result(**json.loads(line))


def _table(results: Iterable[Result]) -> Iterator[str]:
    """Lines: for each operator how many cases had which outcome, and the first reason."""
    by_operator: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_operator[result.operator].append(result)
    columns = (PASSED, WRONG, REFUSED, CRASHED, SKIPPED)
    yield " ".join(f"{column:>8}" for column in columns) + "  operator: first reason"
    total: Counter[str] = Counter()
    for operator, group in sorted(by_operator.items()):
        counts = Counter(result.outcome for result in group)
        total += counts
        bad = [r for r in group if r.outcome not in (PASSED, SKIPPED)]
        reason = f": {bad[0].reason[:120]}" if bad else ""
        numbers = " ".join(f"{counts[column]:8}" for column in columns)
        yield f"{numbers}  {operator[:60]}{reason}"
    yield " ".join(f"{total[column]:8}" for column in columns) + "  all"


if __name__ == "__main__":
    main()
