"""Replays traces that were damaged at random; run as a program, since TVM may crash.

    python fuzz_traces.py SEED COUNT FILE

The trace on trial is in FILE, so that it is known when the process dies. Prints how many
traces were legal and how many were refused.
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

ODD = (0, -1, 1, 2, 3, 1000, 2**31, 2**40, 2**63, -(2**63), 1.5, None, True, "x", "#1", "b0", [], {})


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


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def main(seed: int, count: int, file: Path) -> None:
    """Damages and replays `count` traces."""
    rng = random.Random(seed)
    device = detect_device(threads=1)
    programs = (conv2d(epilogue=["bias", "relu"]), matmul(), softmax())
    spaces = [Space(kernel(program), device) for program in programs]
    legal = refused = 0
    for _ in range(count):
        space = rng.choice(spaces)
        value = json.loads(rng.choice(space.sketches).text)
        for _ in range(rng.choice([1, 1, 2, 4])):
            value = rng.choice([damage, decide_anew])(value, rng)
            if not isinstance(value, list) or len(value) != 2:
                break
        text = json.dumps(value)
        file.write_text(text)
        try:
            space.apply(Trace.from_text(text))
            legal += 1
        except (IllegalScheduleError, ValueError):
            refused += 1
    print(legal, refused)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
