"""One packing of shared weights for all kernels that take them.

Siblings are donors of each other: whenever a kernel of a group has a new best schedule, that
schedule, carried over, is offered to the others; if it packs the weights in a new way the others
are measured under it at once, so that all can agree whenever the search ends:

    measured      each packing under which every kernel that was measured has a measured and
                  checked schedule costs the sum of weight x latency; the cheapest is taken
    unmeasured    a kernel that was not measured follows: the packing agreed on, or that of the
                  heaviest kernel, where a schedule carried over from there is legal

Agreeing is worth up to 10 % of the group's time. Weights stored once are half of an artifact
for two sets of shapes, half of what is read when it is loaded, and half of what competes for
memory when both run: 440 MB for BERT. On the other hand a packing rarely decides more than how
a tile's columns are cut, and measurements of one schedule differ by some per cent anyway. Beyond
10 % a layout really suits one kernel and not the other (one row, say, against a hundred): each
then keeps its own, and the weights are stored once for each layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from tunebank.device import Device
from tunebank.measure import Measurement
from tunebank.schedule import Scheduled
from tunebank.search.candidates import Proposal
from tunebank.search.deposit import to_record
from tunebank.search.kernel_search import Chosen, KernelSearch
from tunebank.search.sharing import WeightGroup, packing_at
from tunebank.search.siblings import level_of, sibling_traces
from tunebank.transfer import Candidate, Donor

WORTH = 1.10
"""How much longer the group's kernels may take for its weights to be stored once."""
_ATTEMPTS = 3
"""Schedules to try for a kernel under a packing."""
_OFFERS = 2
"""Variants of a new best schedule that a sibling is offered."""

_Table = Mapping[str, Mapping[str, Chosen]]
"""By kernel and packing, the best schedule that was measured and checked."""
_Accept = Callable[[Scheduled], bool]


class Accord:
    """The kernels of one group on their way to one packing. Measures nothing itself.

    Args:
        group: the kernels.
        searches: the searches on all kernels, by key.
        device: the device to compile for.
        source: name of the model.
    """

    def __init__(
        self,
        group: WeightGroup,
        searches: Mapping[str, KernelSearch],
        device: Device,
        source: str,
    ) -> None:
        self._positions = group.positions
        self._searches = {key: searches[key] for key in group.positions}
        self._device = device
        self._source = source
        self._packings: dict[tuple[str, object], str] = {}
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._offered: dict[str, Chosen] = {}

    # -- during the search

    def offer_best(self) -> None:
        """Offers each kernel's best schedule, where it is new, to the others."""
        for key, search in self._searches.items():
            best = search.best
            if best is None or best is self._offered.get(key):
                continue
            self._offered[key] = best
            for other in self._searches:
                if other != key:
                    candidates = list(self._carried_over(key, best, other))[:_OFFERS]
                    self._searches[other].offer(key, candidates)

    def missing(self, *, after: str | None = None) -> Mapping[str, int]:
        """By kernel, under how many packings it still has to be measured.

        Args:
            after: a kernel that may yet want another packing.
        """
        table = self._table()
        counts: Counter[str] = Counter()
        if after in self._searches:
            counts.update(key for key in self._searches if key != after)
        for packing, _ in self._leaders(table):
            counts.update(self._lacking(packing, table))
        return counts

    def wanted(self) -> list[tuple[KernelSearch, Proposal]]:
        """What to measure and check next, one schedule per kernel; empty if all is known.

        The packing whose leader takes most of the time comes first.
        """
        table = self._table()
        for packing, leader in self._leaders(table):
            found = []
            for key in self._lacking(packing, table):
                self._attempts[key, packing] += 1
                proposal = self._next(key, packing, leader, table[leader][packing])
                if proposal is not None:
                    found.append((self._searches[key], proposal))
            if found:
                return found
        return []

    # -- in the end

    def settle(self, chosen: Mapping[str, Chosen]) -> dict[str, Chosen]:
        """What the kernels get instead of what each chose for itself.

        Args:
            chosen: what stands, by kernel.
        """
        table = self._table()
        settled = {key: chosen[key] for key in self._searches}
        agreed = self._agreed(table)
        if agreed is not None:
            settled.update({key: row[agreed] for key, row in table.items() if row})
        leader = self._heaviest(settled, of=[key for key, row in table.items() if row])
        leader = leader or self._heaviest(settled, of=list(self._searches))
        if leader is None:
            return settled
        packing = self._packing(leader, _scheduled(settled[leader]))
        for key in self._searches:
            if key != leader and not table[key]:
                settled[key] = self._following(key, settled[key], leader, settled[leader], packing)
        return settled

    def _agreed(self, table: _Table) -> str | None:
        """The packing with the least sum, if it is worth it; None leaves each its own."""
        rows = {key: row for key, row in table.items() if row}
        if not rows:
            return None
        common = set.intersection(*(set(row) for row in rows.values()))
        costs = {
            packing: sum(self._cost(key, row[packing]) for key, row in rows.items())
            for packing in sorted(common)
        }
        best = min(costs, key=lambda packing: costs[packing], default=None)
        return best if best is not None and costs[best] <= WORTH * self._own_cost(rows) else None

    def _following(
        self, key: str, own: Chosen, leader: str, leading: Chosen, packing: str
    ) -> Chosen:
        """A schedule of the packing for a kernel that was not measured; else its own."""
        if own.proposal is not None and self._packing(key, own.proposal.scheduled) == packing:
            return own
        proposal = self._searches[key].untried(
            self._carried_over(leader, leading, key), accept=self._accepting(key, packing)
        )
        return Chosen(proposal) if proposal is not None else own

    def _heaviest(self, chosen: Mapping[str, Chosen], *, of: Sequence[str]) -> str | None:
        """The first, since a group names its heaviest kernel first, that has a schedule."""
        return next((key for key in of if chosen[key].proposal is not None), None)

    # -- what is known

    def _table(self) -> _Table:
        table: dict[str, dict[str, Chosen]] = {}
        for key, search in self._searches.items():
            row = table.setdefault(key, {})
            for proposal, result in search.measured:
                if result.checked and result.latency_us is not None:
                    packing = self._packing(key, proposal.scheduled)
                    if packing not in row or result.latency_us < (row[packing].latency_us or 0.0):
                        row[packing] = Chosen(proposal, result)
        return table

    def _leaders(self, table: _Table) -> list[tuple[str, str]]:
        """The packings of the kernels' best, each with a kernel whose best it is."""
        measured = [key for key in self._searches if table[key]]
        measured.sort(key=lambda key: -self._cost(key, _best(table[key])))
        leaders: dict[str, str] = {}
        for key in measured:
            leaders.setdefault(self._packing(key, _scheduled(_best(table[key]))), key)
        return list(leaders.items())

    def _lacking(self, packing: str, table: _Table) -> list[str]:
        """The kernels to measure under a packing that may still be agreed on."""
        rows = {key: row for key, row in table.items() if row}
        least = sum(self._cost(k, row.get(packing) or _best(row)) for k, row in rows.items())
        if least > WORTH * self._own_cost(rows):
            return []
        return [
            key
            for key, row in table.items()
            if packing not in row and self._attempts[key, packing] < _ATTEMPTS
        ]

    def _next(self, key: str, packing: str, leader: str, leading: Chosen) -> Proposal | None:
        """A schedule to measure and check: one that ran but was not checked, else a new one."""
        unchecked = [
            (result.latency_us, index)
            for index, (proposal, result) in enumerate(self._searches[key].measured)
            if result.latency_us is not None
            and not result.checked
            and self._packing(key, proposal.scheduled) == packing
        ]
        if unchecked and self._attempts[key, packing] == 1:
            return self._searches[key].measured[min(unchecked)[1]][0]
        return self._searches[key].untried(
            self._carried_over(leader, leading, key), accept=self._accepting(key, packing)
        )

    def _carried_over(self, owner: str, chosen: Chosen, key: str) -> Iterator[Candidate]:
        """A kernel's schedule as candidates of a sibling."""
        proposal = chosen.proposal
        if proposal is None:
            return
        kernel, target = self._searches[owner].kernel, self._searches[key].kernel
        donor = self._donor(proposal, chosen.result, key)
        for trace in sibling_traces(proposal.scheduled.trace, kernel, target, self._device):
            yield Candidate(trace, donor)

    def _donor(self, proposal: Proposal, result: Measurement | None, key: str) -> Donor | None:
        """What stands behind a schedule that is carried over: its own measurement as a record.

        If it was not measured, whatever stood behind it: a record of the bank, or none for a
        default schedule.
        """
        record, standing = None, 1.0
        if result is not None:
            donor_id = proposal.donor.record.id if proposal.donor else None
            record = to_record(
                proposal.scheduled,
                result,
                self._device,
                source=self._source,
                origin=proposal.origin,
                donor_id=donor_id,
            )
        elif proposal.donor is not None:
            record, standing = proposal.donor.record, proposal.donor.standing
        if record is None:
            return None
        keys = (record.kernel_key, record.class_key)
        return Donor(record, level_of(keys, self._searches[key].kernel), standing)

    def _accepting(self, key: str, packing: str) -> _Accept:
        return lambda scheduled: self._packing(key, scheduled) == packing

    def _packing(self, key: str, scheduled: Scheduled) -> str:
        place = (key, scheduled.trace.identity)
        if place not in self._packings:
            self._packings[place] = packing_at(scheduled.module, self._positions[key])
        return self._packings[place]

    def _cost(self, key: str, chosen: Chosen) -> float:
        return self._searches[key].kernel.weight * (chosen.latency_us or 0.0)

    def _own_cost(self, rows: _Table) -> float:
        return sum(self._cost(key, _best(row)) for key, row in rows.items())


def _best(row: Mapping[str, Chosen]) -> Chosen:
    return min(row.values(), key=lambda chosen: chosen.latency_us or 0.0)


def _scheduled(chosen: Chosen) -> Scheduled:
    assert chosen.proposal is not None
    return chosen.proposal.scheduled
