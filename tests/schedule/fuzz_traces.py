"""Replays traces that were damaged at random; run as a program, since TVM may crash.

    python fuzz_traces.py SEED COUNT FILE

The trace on trial is in FILE, so that it is known when the process dies. Prints how many
traces were legal, how many the grammar refused, and how many TVM.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from programs import conv2d, kernel, matmul, softmax
from tunebank.device import detect_device
from tunebank.schedule import IllegalScheduleError, Space, Trace
from tunebank.schedule.grammar import check_trace

ODD = (0, -1, 1, 2, 1000, 2**31, 2**63, -(2**63), 1.5, None, True, "x", "#1", "b0", [], {})
PLAUSIBLE = (0, 1, 2, 3, 5, 7, 16, 63, 1000, 1 << 20, -1, -2)


def damage(value: Any, rng: random.Random) -> Any:
    """The value with one part changed, dropped, doubled or moved."""
    if not isinstance(value, list) or not value:
        return rng.choice(ODD)
    place = rng.randrange(len(value))
    how = rng.choice(["inside"] * 6 + ["drop", "double", "swap", "odd"])
    parts = list(value)
    if how == "inside":
        parts[place] = damage(parts[place], rng)
    elif how == "drop":
        del parts[place]
    elif how == "double":
        parts.insert(place, parts[place])
    elif how == "swap":
        other = rng.randrange(len(parts))
        parts[place], parts[other] = parts[other], parts[place]
    else:
        parts[place] = rng.choice(ODD)
    return parts


def decide_anew(value: Any, rng: random.Random) -> Any:
    """The trace with one decision replaced by nonsense."""
    steps, decisions = value
    if not isinstance(decisions, list) or not decisions or not all(map(_is_pair, decisions)):
        return damage(value, rng)
    place = rng.randrange(len(decisions))
    index, decision = decisions[place]
    options = [rng.choice(ODD), damage(decision, rng), [rng.choice(ODD) for _ in range(4)]]
    changed = [*decisions[:place], [index, rng.choice(options)], *decisions[place + 1 :]]
    return [steps, changed]


def mislead(value: Any, rng: random.Random) -> Any:
    """The trace with some words replaced by others of their sort: the grammar can't tell."""
    steps, decisions = json.loads(json.dumps(value))
    known = [name for step in steps for name in step[3]]
    for _ in range(rng.choice([1, 1, 2, 5])):
        if rng.random() < 0.4:
            decision = rng.choice(decisions)
            decision[1] = _other_words(decision[1], known, rng)
        else:
            place = rng.randrange(len(steps))
            part = rng.choice([1, 1, 2])
            known_here = [name for step in steps[:place] for name in step[3]]
            steps[place][part] = _other_words(steps[place][part], known_here, rng)
    return [steps, decisions]


def _other_words(word: Any, known: list[str], rng: random.Random) -> Any:
    if isinstance(word, list):
        return [_other_words(one, known, rng) if rng.random() < 0.6 else one for one in word]
    if isinstance(word, int):
        return rng.choice(PLAUSIBLE)
    if isinstance(word, str) and word[:1] == "#":
        return f"#{rng.randint(0, 5)}"
    if isinstance(word, str) and word[1:].isdigit():
        return rng.choice([name for name in known if name[0] == word[0]] or [word])
    return word


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def main(seed: int, count: int, file: Path) -> None:
    """Damages and replays `count` traces."""
    rng = random.Random(seed)
    device = detect_device(threads=1)
    programs = (conv2d(epilogue=["bias", "relu"]), matmul(), softmax())
    spaces = [Space(kernel(program), device) for program in programs]
    legal = ungrammatical = refused = 0
    for _ in range(count):
        space = rng.choice(spaces)
        value = json.loads(rng.choice(space.sketches).text)
        if rng.random() < 0.6:
            value = mislead(value, rng)
        else:
            value = rng.choice([damage, decide_anew])(value, rng)
        text = json.dumps(value)
        file.write_text(text)
        try:
            trace = Trace.from_text(text)
            check_trace(trace)
        except ValueError:
            ungrammatical += 1
        else:
            try:
                space.apply(trace)
                legal += 1
            except IllegalScheduleError:
                refused += 1
    print(legal, ungrammatical, refused)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
