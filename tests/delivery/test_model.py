"""Outbox and policy against a model: whatever happens, nothing is lost, out of order, or sent by two owners at once."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from athina_trace._delivery import maintenance
from athina_trace._delivery.entry import Entry, Lease
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.retry import Verdict, backoff, verdict
from athina_trace._delivery.sqlite_outbox import SqliteOutbox

KEYS = st.sampled_from(["a", "b", "c"])
STATUSES = st.sampled_from([200, 409, 400, 414, 422, 404, 429, 500, 401, None])


class Deliveries(RuleBasedStateMachine):
    """Three owners of one outbox put, lease, settle, die and come back, under one clock that also runs backwards."""

    held = Bundle("held")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.now = 1_000_000.0
        self.numbers = itertools.count(1)  # unique for each log, although purged logs no longer count as made
        self.made = 0
        self.put_in: dict[str, list[str]] = defaultdict(list)
        self.waiting: dict[str, list[str]] = defaultdict(list)
        self.taken: dict[str, list[str]] = defaultdict(list)
        self.refused: dict[str, float] = {}  # → when
        self.dropped = 0
        self.holder: dict[str, int] = {}
        self.outboxes: list[Outbox] = [self.open() for _ in range(3)]
        for key in ("a", "b", "c"):
            self.put(key, owner=0, count=3)

    def open(self) -> Outbox:
        return SqliteOutbox(str(Path(self.folder) / "outbox.db"))

    @rule(key=KEYS, owner=st.integers(0, 2), count=st.integers(1, 3))
    def put(self, key: str, owner: int, count: int) -> None:
        for _ in range(count):
            self.made += 1
            name = f"{key}{next(self.numbers)}"
            self.outboxes[owner].put(Entry(key, "log", name, self.now, b"{%b}" % (b" " * (self.made % 5))))
            self.waiting[key].append(name)

    @rule(target=held, owner=st.integers(0, 2), keys=st.integers(1, 3), batch=st.integers(1, 3))
    def lease(self, owner: int, keys: int, batch: int) -> Any:
        return multiple(*self._leases(owner, keys, batch))

    def _leases(self, owner: int, keys: int, batch: int) -> list[tuple[Outbox, Lease]]:
        outbox = self.outboxes[owner]
        with outbox.transaction():
            outbox.collect()
            outbox.reclaim()
            leases = outbox.lease(self.now, keys=keys, batch=batch)
        for leased in leases:
            assert leased.ordering_key not in self.holder, "two owners"
            self.holder[leased.ordering_key] = owner
            names = [entry.reference for entry in leased.entries]
            assert names == self.waiting[leased.ordering_key][: len(names)], "out of order"
        return [(outbox, leased) for leased in leases]

    @rule(
        owner=st.integers(0, 2),
        statuses=st.lists(STATUSES, min_size=3, max_size=3),
        chance=st.floats(0, 1),
        keep=st.booleans(),
    )
    def deliver(self, owner: int, statuses: list[int | None], chance: float, keep: bool) -> None:
        """All at once, since few examples lease and settle in turn."""
        for lease in self._leases(owner, keys=3, batch=3):
            self.settle(lease, statuses, chance, keep)

    @rule(
        lease=consumes(held),
        statuses=st.lists(STATUSES, min_size=3, max_size=3),
        chance=st.floats(0, 1),
        keep=st.booleans(),
    )
    def settle(self, lease: tuple[Outbox, Lease], statuses: list[int | None], chance: float, keep: bool) -> None:
        outbox, leased = lease
        if outbox not in self.outboxes:
            return  # it died meanwhile
        with outbox.transaction():
            due = self._answer(outbox, leased, statuses, chance, keep=keep)
            outbox.release(leased.ordering_key, due=due, attempts=leased.attempts + 1 if due else 0)
        del self.holder[leased.ordering_key]

    def _answer(self, outbox: Outbox, leased: Lease, statuses: list[int | None], chance: float, *, keep: bool) -> float:
        for entry, status in zip(leased.entries, statuses, strict=False):
            told = verdict(status)
            if told is Verdict.DELIVERED:
                outbox.delivered(entry, self.now, keep=keep)
                self.taken[leased.ordering_key].append(entry.reference)
            elif told is Verdict.REFUSED:
                outbox.refused(entry, self.now, status=status, reason="no")
                self.refused[entry.reference] = self.now
            else:
                return self.now + backoff(leased.attempts + 1, random=chance)
            assert self.waiting[leased.ordering_key].pop(0) == entry.reference
        return 0.0

    @rule(owner=st.integers(0, 2), keep=st.booleans(), before=st.floats(0, 100_000))
    def fail_in_a_step(self, owner: int, keep: bool, before: float) -> None:
        """The disk is full at the end of a transaction, for example: it has had no effect."""
        outbox = self.outboxes[owner]
        with suppress(ZeroDivisionError), outbox.transaction():
            outbox.collect()
            outbox.reclaim()
            outbox.quota.drop_refused(before=self.now - before)
            for leased in outbox.lease(self.now, keys=3, batch=3):
                for entry in leased.entries:
                    outbox.refused(entry, self.now, status=400, reason="no")
                    outbox.count_possible_duplicate()
                outbox.release(leased.ordering_key)
            for leased in outbox.lease(self.now, keys=3, batch=3):
                outbox.delivered(leased.entries[0], self.now, keep=keep)
            raise ZeroDivisionError

    @rule(lease=consumes(held), answered=st.integers(0, 3))
    def die(self, lease: tuple[Outbox, Lease], answered: int) -> None:
        """Its owner is killed after so many answers, none of them committed; another takes over."""
        outbox, leased = lease
        if outbox not in self.outboxes:
            return
        for entry in leased.entries[:answered]:
            outbox.acknowledge(entry)
            self.taken[leased.ordering_key].append(entry.reference)
            self.waiting[leased.ordering_key].remove(entry.reference)
        owner = self.outboxes.index(outbox)
        outbox._owner.release()
        outbox.store.close()
        self.outboxes[owner] = self.open()
        self.holder = {key: each for key, each in self.holder.items() if each != owner}

    @rule(seconds=st.floats(-10_000, 100_000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if seconds < 0:
            with self.outboxes[0].transaction():
                self.outboxes[0].store.clamp_due_times(self.now)

    @rule(owner=st.integers(0, 2), vacuum=st.booleans())
    def compact(self, owner: int, vacuum: bool) -> None:
        self.outboxes[owner].compact(vacuum=vacuum)

    @precondition(lambda self: not self.holder)
    @rule()
    def retry_refused(self) -> None:
        self.outboxes[0].collect_all()
        maintenance.retry(self.outboxes[0].path)
        for name in self.refused:
            self.waiting[name[0]].append(name)
        for names in self.waiting.values():
            names.sort(key=lambda each: int(each[1:]))
        self.refused.clear()

    @rule()
    def purge_waiting(self) -> None:
        """From the command line; what a living owner leases is in flight, and is kept."""
        self.outboxes[0].collect_all()
        maintenance.purge(self.outboxes[0].path, "waiting", before=float("inf"))
        for key, names in self.waiting.items():
            if key not in self.holder:
                self.made -= len(names)
                names.clear()

    @rule(state=st.sampled_from(["delivered", "refused"]))
    def purge_resolved(self, state: str) -> None:
        maintenance.purge(self.outboxes[0].path, state, before=float("inf"))
        if state == "refused":
            self.made -= len(self.refused)
            self.refused.clear()

    @precondition(lambda self: self.refused)
    @rule(owner=st.integers(0, 2), seconds=st.floats(-100_000, 100_000))
    def drop_refused(self, owner: int, seconds: float) -> None:
        """The oldest are dropped, up to the first that was refused too recently."""
        self.outboxes[owner].quota.drop_refused(before=self.now - seconds)
        for name in sorted(self.refused, key=lambda each: int(each[1:])):
            if self.refused[name] >= self.now - seconds:
                break
            del self.refused[name]
            self.dropped += 1

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "outboxes"):
            return
        self.outboxes[0].collect_all()
        counts = self.outboxes[0].counts()
        unknown = counts.waiting - sum(map(len, self.waiting.values()))  # answered, but nobody has reclaimed it yet
        assert counts.made == self.made
        assert counts.delivered + unknown == sum(map(len, self.taken.values()))
        assert counts.refused == len(self.refused)
        assert counts.dropped == self.dropped
        assert counts.possible_duplicates == 0
        assert unknown >= 0
        with closing(sqlite3.connect(self.outboxes[0].path)) as db:
            sums = dict(db.execute("SELECT state, sum(length(body)) FROM entry GROUP BY state"))
            counters = dict(db.execute("SELECT name, value FROM counter"))
        for state in ("delivered", "refused"):
            assert counters.get(f"{state}_bytes", 0) == sums.get(state, 0)

    def teardown(self) -> None:
        if not hasattr(self, "outboxes"):
            return
        for number in range(3):
            self.outboxes[number].close()
        self._drain(self.open())
        shutil.rmtree(self.folder)

    def _drain(self, heir: Outbox) -> None:
        """Nothing is lost: the last owner finds exactly what was neither accepted nor refused."""
        heir.collect_all()
        with heir.transaction():
            heir.reclaim()
            heir.store.clamp_due_times(self.now)
            leases = heir.lease(self.now, keys=99, batch=999)
        found = {leased.ordering_key: [entry.reference for entry in leased.entries] for leased in leases}
        assert found == {key: names for key, names in self.waiting.items() if names}
        heir.close()


Deliveries.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
TestDeliveries = Deliveries.TestCase
