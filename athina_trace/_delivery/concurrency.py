"""How many requests may be in flight, how many a second may begin, and whether any is sent at all.

One controller for an outage, a rate limit, a slow server and a quick one. It is pure: time (monotonic seconds) and
chance are passed in, nothing waits and nothing is locked. `senders` asks it before each request and reports each
answer to it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from athina_trace._delivery.metrics import Histogram
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import THROTTLED, Verdict, verdict
from athina_trace._delivery.routes import Kind

QUICK_SECONDS = 0.005
"""A server that answers within this takes hundreds a second on one connection: another thread would only cost."""
PAYS = 1.5
"""Twice as many requests must not take longer than this many times as long, each; else they are not worth it."""
SHARE = 0.125
"""What our threads may take of the time of a program that computes: it keeps about seven eighths."""
_NEAR = 0.15
"""By which part of it the share may differ before the level follows."""
_FEW = 8
"""Requests in flight that are allowed up to that share, whatever a server makes of them."""
SHARE_SECONDS = 0.75
"""From a change of the level until the share says something about it."""
ROUND_SECONDS = 0.25
"""A round ends with its eighth answer, or with fewer after this time: slow servers must not delay what is learned."""
_ROUND_ANSWERS = 8
_STALLED_LIMIT = 8
"""Requests in flight up to which a server without any answer is asked for more: one that hangs is not all."""
FIRST_UP_SECONDS = 0.03
UP_SECONDS = 2.0
DOWN_SECONDS = 4.0
"""From a trial to the next upwards, or downwards: a round of one costs half of what is delivered meanwhile, at most.

One upwards that did not pay may have met slow answers by chance, so the next comes soon, and each further one twice as
late.
"""

TRIP = 9
"""Failures without a success in between that count as an outage, or `_SURELY` times as many as a success took of late,
or twice as many as may be in flight, whichever is most: a server that fails at random, however often, and one that
takes a part of what it gets are not down."""
_SURELY = 8
"""A server that fails at random fails so many times longer than usual in one of 3,000 cases."""
_LEARNED, _UNLEARNED = 1 / 4, 1 / 32
"""Weight of the last success in what a success takes, where that was more and where it was less: too much costs a few
requests to a server that is down, and too little stops deliveries."""
_MOST_TRIES = 400
"""Requests for one success that are learned from at most."""
FIRST_PROBE_SECONDS = 0.25
LONGEST_PROBE_SECONDS = 60.0
_QUIET_SECONDS = 1200.0
"""From the first failure to the longest pause between two probes. About half as many are sent until then: a server that
fails at random and takes one request of 200 goes without a success for so long in one of 20 cases."""
_UNREACHED_SECONDS = 30.0
"""The same where not even a connection is made, so that nothing seems to be there which could fail at random; more for
one that was known to do so."""
_UNREACHED = 20
"""Failures in a row without a connection that speak for that."""
_ASTRAY_SECONDS = 300.0
"""The same where logs are refused, all of them: nor is that a matter of chance."""
LONGEST_PAUSE_SECONDS = 300.0
"""The longest pause where the API key is refused. Each is twice as long as the one before."""
_UNAUTHORIZED = 401
_OF_THE_KEY = (_UNAUTHORIZED, 403)
_MOST_SUSPECTS = 1000
_OPINIONS = 2
"""Uncertain answers before the API key or the address is blamed rather than the log; of 401, one. Where logs were taken
before, one of several servers may be wrong: then `_SURELY` times as many, without a success in between, as one took."""
_TARGETS = 3
"""The same for updates and feedback, whose logs may be unknown to Athina: to so many logs' own."""
_TRIES = 5
"""Uncertain answers to one entry, or so many times as many as a success took of late, before it is refused."""

_CUT = 0.95
"""Part of the rate that Athina took which is kept when it answers 429."""
_GROWTH = 0.4
"""Requests a second for each cubic second; RFC 9438 has the curve and the factor, AWS's clients use both for rates."""
_WEIGHT = 1 / 32
"""Of an answer in the share of those that were 429."""
_IN_A_ROW = 4
"""Answers of 429 without another in between that speak of a limit."""
_MANY = 0.25
"""A share that speaks of a limit."""
_MOSTLY = 8
"""Answers of 429 in a row, later and later, after which all that is sent has to wait."""
_IN_VAIN = 3
"""Answers of 429 at less than the ceiling that speak against a limit."""
_FIRST_HOLD_SECONDS = 0.02
_LONGEST_HOLD_SECONDS = 1.0
_DOUBLING_SECONDS = 0.5
_UNLIMITED = 10_000.0
"""Requests a second from which on no bound is held."""


class InFlight(NamedTuple):
    """A request in flight.

    Attributes:
        key: the ordering key of its entry.
        reference: what the entry is about.
        kind: what the entry is.
        ticket: what held when it began; see `Concurrency`.
        begins: when it is sent, monotonic seconds.
        is_paced: whether it had to wait for that.
        slowdowns: how often the rate was held or cut before.
    """

    key: str
    reference: str
    kind: Kind
    ticket: int
    begins: float
    is_paced: bool
    slowdowns: int


@dataclass
class _Round:
    """Some requests at one level, compared with those of another."""

    began: float
    seconds: float = 0.0
    answers: int = 0
    good: int = 0


class Limit:
    """How many requests may be in flight: twice as many for as long as that pays, half as many where it does not.

    Two neighbouring levels are compared by what a good answer costs, in seconds of requests: time spent on bad answers
    counts, too. A server that is busy, one that sheds load and an interpreter whose threads take turns all look alike:
    more requests in flight bring no more answers. A round of which two thirds are bad halves the level at once.

    A program that computes is different: the more threads of ours wait for the interpreter, the more of it they get,
    and the program the less. Their share bounds the level then.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.reset()

    def reset(self) -> None:
        """Begin, or begin again, with one request."""
        self.value = min(1, self.most)
        self._compared: tuple[int, float] | None = None  # the level before the present trial, and its cost
        self._upwards = True  # where it goes
        self._next_up = self._next_down = 0.0  # when there may be another
        self._patience = FIRST_UP_SECONDS  # until the next upwards, where one does not pay
        self._next_share = 0.0  # when the share may speak again
        self._round: _Round | None = None

    def record(self, now: float, seconds: float, *, good: bool, share: float = 0.0) -> bool:
        """Note one request of the present level, made while more was waiting; True where the level changes.

        `share`: what our threads take of the time of a program that computes, 0 to 1.
        """
        level, round_ = self.value, self._round or _Round(now - seconds)
        round_.seconds += seconds
        round_.answers += 1
        round_.good += good
        is_long = round_.answers >= _ROUND_ANSWERS or now - round_.began >= ROUND_SECONDS
        self._round = None if round_.answers >= level and is_long else round_
        if self._round is not None:
            return False
        cost = round_.seconds / round_.good if round_.good else math.inf
        is_bad = level > 1 and round_.good * 3 <= round_.answers
        if is_bad:
            self.value, self._compared, self._next_up = level // 2, None, now + UP_SECONDS
        elif share > (1 + _NEAR) * SHARE or (share and level < _FEW and self._compared is None):
            self._follow(now, share)
        else:
            self._compare(now, cost, may_grow=share < (1 - _NEAR) * SHARE)
        return self.value != level

    def _follow(self, now: float, share: float) -> None:
        """Bring the level to where our threads take `SHARE`."""
        self._compared = None
        if now >= self._next_share and abs(share - SHARE) > _NEAR * SHARE:
            level = self.value * min(SHARE / share, 2.0)
            level = math.ceil(level) if share < SHARE else max(1, math.floor(level))
            self.value = min(level, self.most, max(_FEW, self.value))
            self._next_share = self._next_up = now + SHARE_SECONDS

    def _compare(self, now: float, cost: float, *, may_grow: bool) -> None:
        """Compare a trial with the level before, and begin another: `cost` is what a good answer took, seconds."""
        level = self.value
        if self._compared is not None:
            before, cost_before = self._compared
            paid = cost <= PAYS * cost_before if self._upwards else cost_before > PAYS * cost
            self.value, self._compared = level if paid else before, None
            # What pays is tried again at once, and its contrary not soon.
            self._next_up, self._next_down = now + UP_SECONDS, now + DOWN_SECONDS
            if not self._upwards:
                self._next_down = now if paid else self._next_down
            elif paid:
                self._next_up, self._patience = now, FIRST_UP_SECONDS
            else:
                self._next_up, self._patience = now + self._patience, min(2 * self._patience, UP_SECONDS)
        if self.value == level:
            if level < self.most and may_grow and cost >= QUICK_SECONDS and now >= self._next_up:
                self._compared, self._upwards, self.value = (level, cost), True, min(2 * level, self.most)
            elif level > 1 and now >= self._next_down:
                self._compared, self._upwards, self.value = (level, cost), False, level // 2

    def halve(self) -> None:
        """Allow half as many."""
        self.value, self._compared, self._round = max(1, self.value // 2), None, None

    def stalled(self) -> bool:
        """Allow a little more if nothing in flight comes back and more is to be sent. True where the level changes."""
        if self.value >= min(self.most, _STALLED_LIMIT):
            return False
        self._round = None
        self.value, self._compared = min(2 * self.value, self.most), None
        return True


class Rate:
    """How many requests a second may begin: no bound until Athina limits the rate, then a cubic curve around its limit.

    The curve stays close to the rate at the last cut for long, then looks for more, quicker and quicker. The first cut
    may have come before the rate could be measured: after that one it doubles until the next.

    Answers of 429 speak of a limit where many come. Some that come at any rate are a proxy's whim, and nothing is
    gained by slowing down for them.
    """

    def __init__(self) -> None:
        self.value = math.inf
        self.slowdowns = 0
        self._ceiling = 0.0
        self._cuts = 0
        self._cut_at = 0.0
        self._first = math.inf  # when a request first passed
        self._next = 0.0  # when the next request may begin
        self._in_a_row = 0  # answers of 429 without a success in between
        self._since_cut = 0  # answers of 429
        self._share = 0.0  # of 429 among the last answers
        self._passed: deque[float] = deque()  # when requests did, in the last second

    def delay(self, now: float) -> float:
        """Reserve the next place; return in how many seconds it is."""
        if self._cuts:
            elapsed = now - self._cut_at
            flat = float((self._ceiling * (1 - _CUT) / _GROWTH) ** (1 / 3))  # seconds until it is at the ceiling again
            cubic = max(self._ceiling + _GROWTH * (elapsed - flat) ** 3, _CUT * self._ceiling)
            self.value = cubic if self._cuts > 1 else self._ceiling * 2.0 ** (elapsed / _DOUBLING_SECONDS)
            is_in_vain = self._cuts > 1 and self._since_cut >= _IN_VAIN and elapsed > flat
            if is_in_vain or self.value > _UNLIMITED:
                self.value, self._cuts = math.inf, 0
        begins = max(self._next, now)
        self._next = begins + 1 / self.value
        return begins - now

    def passed(self, now: float, request: InFlight) -> None:
        """Note that a request was answered with anything but 429."""
        self._first = min(self._first, now)
        self._passed.append(now)
        while self._passed[0] <= now - 1.0:
            self._passed.popleft()
        if request.slowdowns == self.slowdowns or not self._cuts:
            self._in_a_row = 0
            self._share *= 1 - _WEIGHT

    def throttled(self, now: float, request: InFlight) -> bool:
        """Note that Athina answered 429; return whether the rate is cut.

        Requests that were in flight at the last slowdown say nothing new.
        """
        if self._cuts and request.slowdowns != self.slowdowns:
            return False
        self._share += (1 - self._share) * _WEIGHT
        self._in_a_row += 1
        self._since_cut += 1
        is_limit = self._cuts == 1 or self._share > _MANY or self._in_a_row == _IN_A_ROW
        if is_limit:
            self._cut(now)
        if self._in_a_row > 1:
            self.slowdowns += 1
            hold = _FIRST_HOLD_SECONDS * 2.0 ** min(self._in_a_row - 2, 10)
            self._next = max(self._next, now + min(hold, _LONGEST_HOLD_SECONDS))
        return is_limit

    def _cut(self, now: float) -> None:
        """Bound the rate by what passed in a second: a limit may allow more than its rate in one burst."""
        if self._cuts != 1:
            self._ceiling = max(float(sum(1 for at in self._passed if at > now - 1.0)), 1.0)
            self._cuts += 1 if now - self._first < 1.0 else 2
        elif now - self._cut_at < _DOUBLING_SECONDS:
            self._ceiling = max(self.value / 2, 1.0)  # what was measured was a burst
        else:
            self._ceiling = self.value
            self._cuts += 1
        self.slowdowns += 1
        self._cut_at, self._since_cut, self._share = now, 0, 0.0

    @property
    def is_mostly_throttled(self) -> bool:
        """Whether most of the last answers were 429, for seconds."""
        return self._in_a_row >= _MOSTLY


class _Suspects:
    """Entries whose answers may be about them, or about what all share: the API key and the address.

    A firewall answers 403, or leads elsewhere, for a text that it dislikes, and a wrong address does so for every
    text. So others are asked before an entry is blamed: for a log, other logs, since a way for feedback may be
    open where theirs is not.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[Kind, str], tuple[int, int]] = {}  # → uncertain answers, successes before the first
        self._successes = self._taken = 0  # of anything, of logs
        self.opinions = 0
        """Uncertain answers that speak against the API key or the address, since the last success."""
        self._targets: set[str] = set()

    def succeeded(self, kind: Kind) -> None:
        """Note that Athina took or refused an entry."""
        self._successes += 1
        self._taken += kind == "log"

    def clear_key_and_address(self) -> None:
        """Forget what spoke against the API key and the address."""
        self.opinions = 0
        self._targets.clear()

    def blame(self, request: InFlight, status: int | None, *, tries: float, is_shut: bool) -> Verdict:
        """Return what an uncertain answer was due to: REFUSED to its entry, PAUSED to what all share, RETRY: not known.

        Args:
            request: what was answered.
            status: of the answer.
            tries: requests that one success took of late.
            is_shut: whether nothing but probes is sent, so that others cannot be asked.
        """
        is_log = request.kind == "log" or status in _OF_THE_KEY
        taken = self._taken if is_log else self._successes
        answers, since = self._entries.pop((request.kind, request.reference), (0, taken))
        is_alone = since < taken and status != _UNAUTHORIZED  # which is never about an entry
        if not is_alone and is_log:
            self.opinions += 1
        elif not is_alone:
            self._targets.add(request.reference)
        enough = _SURELY * tries if taken else 1 if status == _UNAUTHORIZED else _OPINIONS
        is_shared = self.opinions >= enough or len(self._targets) >= _TARGETS
        is_tried = answers + 1 >= _TRIES * tries
        if is_tried and not (is_shared or is_shut) and (is_alone or not is_log):
            return Verdict.REFUSED
        self._entries[request.kind, request.reference] = answers + 1, since
        if len(self._entries) > _MOST_SUSPECTS:
            del self._entries[next(iter(self._entries))]
        return Verdict.PAUSED if is_shared else Verdict.RETRY


class _Failures:
    """Requests that failed since the last success, and how many a success takes."""

    def __init__(self) -> None:
        self.tries = 1.0
        """Requests that one success took of late."""
        self._number = 0
        self._unreached = 0  # in a row, for which not even a connection was made
        self._since: float | None = None
        self._key: str | None = None  # of the last one

    def add(self, key: str, outcome: Outcome) -> None:
        """Count a request for an entry of the ordering key `key`."""
        # An answer that only ever meets one key says something about its entry, not about Athina.
        if outcome.status is None or key != self._key:
            self._number += 1
            self._key = key
        is_reached = outcome.status is not None or outcome.possible_duplicate
        self._unreached = 0 if is_reached else self._unreached + 1

    def are_an_outage(self, limit: int) -> bool:
        """Return whether they are too many for chance, where up to `limit` requests are in flight."""
        return self._number >= max(TRIP, _SURELY * self.tries, 2 * limit)

    def pause(self, now: float, quiet: float = _QUIET_SECONDS) -> float:
        """Return the seconds until the next probe, which grow with the square of the time without a success.

        `quiet`: the time until the longest pause, seconds; less where nothing is reached.
        """
        if self._since is None:
            self._since = now
        if self._unreached >= _UNREACHED:
            quiet = min(max(_UNREACHED_SECONDS, _SURELY * self.tries), quiet)
        part = ((now - self._since) / quiet) ** 2
        return min(max(FIRST_PROBE_SECONDS, part * LONGEST_PROBE_SECONDS), LONGEST_PROBE_SECONDS)

    def end(self) -> int:
        """Forget them after a success; return how many requests that took."""
        took = self._number + 1
        self._number, self._unreached, self._since, self._key = 0, 0, None, None
        return took

    def learn(self, took: int) -> None:
        """Note that a success took so many requests."""
        took = min(took, _MOST_TRIES)
        self.tries += (took - self.tries) * (_LEARNED if took > self.tries else _UNLEARNED)


class Gate:
    """Whether anything is sent at all: shut by an outage or a wrong key, and opened by any success.

    A shut gate lets one request through now and then, as a probe. `paused` says why the key was refused, `outage` why
    nothing gets through; None where all is well.
    """

    def __init__(self, name: str, *, is_queue: bool) -> None:
        """`name`: what is behind the gate, for messages. For `is_queue` see `Concurrency`."""
        self._name = name
        self._is_queue = is_queue
        self.paused: str | None = None
        self.outage: str | None = None
        self.is_astray = False
        """Whether logs, at least, do not reach Athina under the address, or are refused whatever is in them."""
        self._until = 0.0
        self._failures = _Failures()
        self._suspects = _Suspects()
        self._refused: set[str] = set()  # ordering keys of logs that were, since one was taken

    @property
    def is_shut(self) -> bool:
        """Whether nothing is sent but a probe."""
        return self.paused is not None or self.outage is not None

    @property
    def tries(self) -> float:
        """Requests that one success took of late."""
        return self._failures.tries

    def wait(self, now: float) -> float:
        """Return the seconds until a probe may be sent."""
        return max(0.0, self._until - now) if self.is_shut else 0.0

    def probe(self) -> None:
        """Let the next probe through at once: a caller waits for it."""
        if self.paused is None:
            self._until = 0.0

    def succeeded(self, request: InFlight, now: float) -> None:
        """Note that Athina took an entry: all is well."""
        refused = 0
        if request.kind == "log":
            refused = len(self._refused)
            self._refused.clear()
        took = self._answered(request, now)
        if took:
            self._failures.learn(took + refused)

    def refused(self, request: InFlight, outcome: Outcome, now: float, *, chance: float) -> Verdict:
        """Note that Athina refused an entry for what is in it; return PAUSED where the logs of every session meet that.

        Then it is something between, or a change at Athina, that takes none, rather than each of them that is bad.
        """
        if request.kind == "log" and not self._is_queue:
            self._refused.add(request.key)
            if len(self._refused) >= _SURELY * self.tries:
                return self._led_astray(request, "refuses every log", outcome, now, chance=chance)
        self._answered(request, now)
        return Verdict.REFUSED

    def _answered(self, request: InFlight, now: float) -> int:
        """Open the gate, since Athina took or refused an entry; return how many requests that took.

        0 where it says nothing about others.
        """
        self._suspects.succeeded(request.kind)
        if self.is_astray and request.kind != "log":
            self._until = now + self._failures.pause(now, _ASTRAY_SECONDS)  # feedback has an address of its own
            return 0
        self.paused = self.outage = None
        self.is_astray = False
        self._suspects.clear_key_and_address()
        return self._failures.end()

    def failed(self, key: str, outcome: Outcome, now: float, *, chance: float, limit: int) -> None:
        """Note that an entry of the ordering key `key` has to be tried again.

        Args:
            key: of the entry.
            outcome: what was answered.
            now: monotonic seconds.
            chance: 0 to 1.
            limit: how many requests may be in flight.
        """
        self._failures.add(key, outcome)
        pause = self._failures.pause(now)
        if self._failures.are_an_outage(limit):
            reach = "takes no logs now" if outcome.status else "cannot be reached"
            self.outage = f"{self._name} {reach}: {outcome.status or 'no answer'}, {outcome.message}"
        if self.is_shut:
            # A quarter of chance, so that processes which lost Athina together do not come back together.
            self._until = now + max(pause, outcome.retry_after or 0.0) * (1 + chance / 4)

    def asked_to_wait(self, outcome: Outcome, seconds: float, now: float) -> None:
        """Note that Athina answers 429 to most requests: what it asks for one key, it asks for all."""
        self.outage = f"{self._name} asks to wait {seconds:g} seconds: {outcome.status}, {outcome.message}"
        self._until = now + seconds

    def suspected(self, request: InFlight, outcome: Outcome, now: float, *, chance: float) -> Verdict:
        """Note that an entry was not taken for a reason that may be its own, the API key's or the address's."""
        is_key = outcome.status in _OF_THE_KEY
        if is_key:
            self._failures.add(request.key, outcome)
        blamed = self._suspects.blame(request, outcome.status, tries=self.tries, is_shut=self.is_shut)
        if blamed is Verdict.REFUSED:
            return blamed
        pause = self._failures.pause(now, _ASTRAY_SECONDS)
        if is_key and (blamed is Verdict.PAUSED or self.paused):
            self.paused = f"status {outcome.status}: {outcome.message}"
            doublings = min(self._suspects.opinions, 20)
            self._until = now + min(FIRST_PROBE_SECONDS * 2.0**doublings, LONGEST_PAUSE_SECONDS)
            return Verdict.PAUSED
        if blamed is Verdict.PAUSED:
            return self._led_astray(request, "takes nothing under this address", outcome, now, chance=chance)
        if not self.is_shut:
            return Verdict.RETRY
        self._until = now + pause * (1 + chance / 4)
        return Verdict.PAUSED

    def _led_astray(self, request: InFlight, what: str, outcome: Outcome, now: float, *, chance: float) -> Verdict:
        self.is_astray |= request.kind == "log"
        self.outage = f"{self._name}, or what answers in its place, {what}: {outcome.status}, {outcome.message}"
        self._until = now + self._failures.pause(now, _ASTRAY_SECONDS) * (1 + chance / 4)
        return Verdict.PAUSED


class Concurrency:
    """The controller. A request starts with `begin`, and `end` is given its outcome."""

    def __init__(self, most: int, name: str = "Athina", *, is_queue: bool = False) -> None:
        """Start.

        Args:
            most: requests in flight; 0 where none is ever sent.
            name: of what they are sent to.
            is_queue: whether a log that is kept holds up all behind it, whatever their session.
        """
        self.gate = Gate(name, is_queue=is_queue)
        self.in_flight = 0
        """Requests that have begun and not ended."""
        self.latency = Histogram()
        """Of the requests that ended: seconds from their start to their answer, or to their failure."""
        self._limit = Limit(most)
        self._rate = Rate()
        self._ticket = 0  # grows with each change: what began before it says nothing about what holds since

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return self._limit.value

    def window(self, least: int) -> int:
        """Return how many ordering keys may be on lease: at least so many, or one, as a probe, or none at all."""
        if self.gate.is_shut:
            return 1
        return max(least, 2 * self.limit) if self.limit else 0

    def begin(self, now: float, key: str, reference: str, kind: Kind = "log") -> InFlight:
        """Begin a request at `now`, or at the time that it says."""
        delay = self._rate.delay(now)
        self.in_flight += 1
        return InFlight(key, reference, kind, self._ticket, now + delay, delay > 0, self._rate.slowdowns)

    def end(
        self, request: InFlight, outcome: Outcome, now: float, *, waiting: bool, chance: float, share: float = 0.0
    ) -> Verdict:
        """Note the outcome of a request; return what becomes of its log.

        Args:
            request: what `begin` gave.
            outcome: what was answered.
            now: monotonic seconds.
            waiting: whether there is more to send than may be in flight.
            chance: 0 to 1.
            share: what our threads take of the time of a program that computes, 0 to 1.
        """
        self.in_flight -= 1
        self.latency.observe(now - request.begins)
        found, is_current, was_shut = verdict(outcome.status), request.ticket == self._ticket, self.gate.is_shut
        if found is Verdict.UNCERTAIN:
            found = self.gate.suspected(request, outcome, now, chance=chance)
        elif found in (Verdict.REFUSED, Verdict.TRUNCATE):  # which is as short as it can be
            found = self.gate.refused(request, outcome, now, chance=chance)
        elif found is not Verdict.RETRY:
            self.gate.succeeded(request, now)
        elif is_current:
            self._failed(request, outcome, now, chance)
        if outcome.status != THROTTLED:
            self._rate.passed(now, request)
        if self.gate.is_shut:
            if is_current or not was_shut:
                self._ticket += 1
                self._limit.reset()
        elif is_current and waiting and not request.is_paced:
            good = found is not Verdict.RETRY
            self._ticket += self._limit.record(now, now - request.begins, good=good, share=share)
        return found

    def abandon(self) -> None:
        """Note that a request will never end: what sent it is dead."""
        self.in_flight -= 1

    def _failed(self, request: InFlight, outcome: Outcome, now: float, chance: float) -> None:
        if outcome.status == THROTTLED:
            if self._rate.throttled(now, request):
                # Else requests would wait for their places in hundreds, and not see the next cut.
                self._ticket += 1
                self._limit.halve()
            if not self._rate.is_mostly_throttled:
                return
            if outcome.retry_after:
                self.gate.asked_to_wait(outcome, outcome.retry_after * (1 + chance / 4), now)
                return
        self.gate.failed(request.key, outcome, now, chance=chance, limit=self.limit)

    def stalled(self) -> None:
        """Note that nothing in flight has come back for long while more waits."""
        self._ticket += self._limit.stalled()
