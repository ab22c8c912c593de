"""From a kernel and a bank to ranked candidates. Measures nothing, writes nothing."""

from tunebank.transfer.adapt import adapt
from tunebank.transfer.match import LEVELS, Donor, Level, Matcher, match
from tunebank.transfer.rank import Candidate, rank

__all__ = ["LEVELS", "Candidate", "Donor", "Level", "Matcher", "adapt", "match", "rank"]
