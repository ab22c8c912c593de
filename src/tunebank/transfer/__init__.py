"""From a kernel and a bank to ranked candidates. Measures nothing, writes nothing."""

from tunebank.transfer.adapt import adapt
from tunebank.transfer.expect import Expectation
from tunebank.transfer.match import LEVELS, Donor, Level, Matcher, match
from tunebank.transfer.pretrained import PretrainedModel, pretrained
from tunebank.transfer.rank import Candidate, rank

__all__ = [
    "LEVELS",
    "Candidate",
    "Donor",
    "Expectation",
    "Level",
    "Matcher",
    "PretrainedModel",
    "adapt",
    "match",
    "pretrained",
    "rank",
]
