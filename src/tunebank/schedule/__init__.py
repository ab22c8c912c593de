"""Schedules: traces as text, the design space they come from, what their steps decide."""

from tunebank.schedule.default import default_schedule, default_traces, legal_defaults
from tunebank.schedule.roles import TileRole, tile_roles
from tunebank.schedule.space import IllegalScheduleError, Scheduled, Space
from tunebank.schedule.trace import Instruction, Trace, canonical_trace

__all__ = [
    "IllegalScheduleError",
    "Instruction",
    "Scheduled",
    "Space",
    "TileRole",
    "Trace",
    "canonical_trace",
    "default_schedule",
    "default_traces",
    "legal_defaults",
    "tile_roles",
]
