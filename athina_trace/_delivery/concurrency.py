"""Controls how many requests may be in flight, how many may begin per second, and whether any is sent at all.

One controller handles outages, rate limits, slow servers and fast ones. It is pure: time (monotonic seconds) and
random numbers are passed in, and it neither waits nor locks. `senders` asks it before each request and reports each
answer to it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from athina_trace._delivery.metrics import Histogram
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import THROTTLED, Verdict, verdict
from athina_trace._delivery.routes import Kind

QUICK_SECONDS = 0.005
"""If answers come faster than this, one connection sends hundreds a second, and more threads would only cost."""
PAYS = 1.5
"""Doubling the requests in flight pays unless each good answer then costs more than this many times as much."""
SHARE = 0.125
"""The share of the CPU time of a compute-bound program that our threads may take: it keeps about seven eighths."""
_SHARE_TOLERANCE = 0.15
"""Tolerance around `SHARE`, relative to it, before the level is adjusted."""
_SHARE_ONLY_LEVEL = 8
"""Up to this level, the share alone decides how many requests are in flight, however the server responds."""
SHARE_SECONDS = 0.75
"""After a change of the level, the time until the share reflects it."""
ROUND_SECONDS = 0.25
"""A round ends with its eighth answer, or after this time with fewer, so that slow servers do not delay learning."""
_ROUND_ANSWERS = 8
_STALLED_LIMIT = 8
"""While nothing is answered, the level is still raised up to this: one hanging request must not block the others."""
HANGING_SECONDS = 0.25
_HANGING = 3
_LATEST = 64
"""A request that takes longer, and this many times as long as the quickest of so many latest answers, hangs. If fewer
were compared, all of them might be answers to requests that had been hanging."""
FIRST_UP_SECONDS = 0.03
UP_SECONDS = 2.0
DOWN_SECONDS = 4.0
"""Pauses before the next trial of a higher or a lower level. A trial costs at most half of the deliveries during it.

If a higher level did not pay, slow answers may have been chance: the next trial comes soon, after that at doubled
intervals.
"""

TRIP = 9
"""An outage is at least this many failures in a row, `_OUTAGE_FACTOR` times the recent number of requests per success,
and twice the requests in flight: a server that fails at random, however often, or accepts only some requests, is not
down."""
_OUTAGE_FACTOR = 8
"""By chance, a randomly failing server fails this many times as long as usual in one of 3,000 cases."""
_LEARNED, _UNLEARNED = 1 / 4, 1 / 32
"""Weights of the latest success in the average of requests per success, if it took more and if it took fewer: too high
an average costs a few requests to a server that is down; too low a one stops deliveries."""
_MOST_TRIES = 400
"""The highest number of requests per success that is learned."""
FIRST_PROBE_SECONDS = 0.25
LONGEST_PROBE_SECONDS = 60.0
_QUIET_SECONDS = 1200.0
"""The time from the first failure until the pause between probes is longest. About half as many probes are sent until
then: a server that accepts one request of 200 at random has no success for so long in one of 20 cases."""
_UNREACHED_SECONDS = 30.0
"""The same if no connection can be made: nothing that could fail at random seems to be there. Longer for a server that
was known to fail at random."""
_UNREACHED = 20
"""So many failures in a row without a connection mean that the server is unreachable."""
_REJECTED_SECONDS = 300.0
"""The same if all logs are refused, which is not chance either."""
LONGEST_PAUSE_SECONDS = 300.0
"""The longest pause if the API key is refused; each is twice as long as the one before."""
_UNAUTHORIZED = 401
_KEY_STATUSES = (_UNAUTHORIZED, 403)
_MOST_SUSPECTS = 1000
_UNCERTAIN_ANSWERS = 2
"""After this many uncertain answers (of 401, one), the API key or the address is blamed rather than the log. If logs
were accepted before, one of several servers may be misconfigured: then it takes `_OUTAGE_FACTOR` times the requests per
success."""
_TARGETS = 3
"""The same for updates and feedback, whose logs Athina may not know: answers about so many different logs."""
_TRIES = 5
"""An entry is refused after this many uncertain answers, times the recent number of requests per success."""

_CUT = 0.95
"""On a 429, the rate is cut to this fraction of what Athina accepted."""
_GROWTH = 0.4
"""In requests per second per cubic second: the curve and factor of RFC 9438, which AWS's clients also use for rates."""
_WEIGHT = 1 / 32
"""Weight of an answer in the average share of 429."""
_IN_A_ROW = 4
"""So many answers of 429 in a row indicate a limit."""
_HIGH_SHARE = 0.25
"""A share of 429 above this indicates a limit."""
_MOSTLY_THROTTLED = 8
"""After so many answers of 429 in a row, at growing intervals, all sending pauses."""
_IN_VAIN = 3
"""So many answers of 429 below the ceiling show that they do not depend on the rate."""
_FIRST_HOLD_SECONDS = 0.02
_LONGEST_HOLD_SECONDS = 1.0
_DOUBLING_SECONDS = 0.5
_UNLIMITED = 10_000.0
"""Requests per second above which the rate is no longer limited."""


class InFlight(NamedTuple):
    """A request in flight.

    Attributes:
        key: the entry's ordering key.
        reference: the entry's reference.
        kind: the entry's kind.
        ticket: the controller's ticket when it began; see `Concurrency`.
        begins: when it is sent, monotonic seconds.
        is_paced: whether the rate delays it.
        slowdowns: how often the rate had been held or cut by then.
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
    """Some requests at one level, to be compared with those at another."""

    began: float
    first_answered: float
    seconds: float = 0.0
    answers: int = 0
    good: int = 0


class Limit:
    """Limits how many requests may be in flight: doubles the level as long as that pays, and halves it otherwise.

    Two adjacent levels are compared by the cost of a good answer: the total seconds of all requests, also of failed
    ones, per good answer. A busy server, one that sheds load and an interpreter whose threads compete all look the
    same: more requests in flight bring no more answers. So does one that answers no more than so many connections: a
    request counts, too, if a whole round was answered while it was not. If two thirds of a round fail, the level is
    halved at once.

    A compute-bound program is different: the more of our threads wait for the interpreter (GIL), the more they get of
    it, at the program's expense. Then their share of the CPU time bounds the level.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.reset()

    def reset(self) -> None:
        """Start over with one request in flight."""
        self.value = min(1, self.most)
        self._compared: tuple[int, float] | None = None  # the level before the current trial, and its cost
        self._upwards = True  # the direction of the trial
        self._next_up = self._next_down = 0.0  # when the next trial may start
        self._patience = FIRST_UP_SECONDS  # the pause after an upward trial that did not pay
        self._next_share = 0.0  # when the share may change the level again
        self._round: _Round | None = None

    def record(
        self, now: float, seconds: float, *, good: bool, unanswered: Iterable[InFlight] = (), share: float = 0.0
    ) -> bool:
        """Record a request at the current level that ran while more were waiting; return whether the level changes.

        Args:
            now: monotonic seconds.
            seconds: how long it took.
            good: whether it succeeded.
            unanswered: the requests that are still in flight.
            share: our threads' share of the CPU time of a compute-bound program, 0 to 1.
        """
        level, round_ = self.value, self._round or _Round(now - seconds, now)
        round_.seconds += seconds
        round_.answers += 1
        round_.good += good
        is_long = round_.answers >= _ROUND_ANSWERS or now - round_.began >= ROUND_SECONDS
        self._round = None if round_.answers >= level and is_long else round_
        if self._round is not None:
            return False
        round_.seconds += sum(now - each.begins for each in unanswered if each.begins < round_.first_answered)
        cost = round_.seconds / round_.good if round_.good else math.inf
        is_bad = level > 1 and round_.good * 3 <= round_.answers
        if is_bad:
            self.value, self._compared, self._next_up = level // 2, None, now + UP_SECONDS
        elif share > (1 + _SHARE_TOLERANCE) * SHARE or (share and level < _SHARE_ONLY_LEVEL and self._compared is None):
            self._follow(now, share)
        else:
            self._compare(now, cost, may_grow=share < (1 - _SHARE_TOLERANCE) * SHARE)
        return self.value != level

    def _follow(self, now: float, share: float) -> None:
        """Adjust the level so that our threads take `SHARE`."""
        self._compared = None
        if now >= self._next_share and abs(share - SHARE) > _SHARE_TOLERANCE * SHARE:
            level = self.value * min(SHARE / share, 2.0)
            level = math.ceil(level) if share < SHARE else max(1, math.floor(level))
            self.value = min(level, self.most, max(_SHARE_ONLY_LEVEL, self.value))
            self._next_share = self._next_up = now + SHARE_SECONDS

    def _compare(self, now: float, cost: float, *, may_grow: bool) -> None:
        """Compare a trial with the level before, and start the next. `cost`: seconds per good answer."""
        level = self.value
        if self._compared is not None:
            before, cost_before = self._compared
            paid = cost <= PAYS * cost_before if self._upwards else cost_before > PAYS * cost
            self.value, self._compared = level if paid else before, None
            # A direction that pays is tried again at once, the opposite one only later.
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
        """Allow half as many requests."""
        self.value, self._compared, self._round = max(1, self.value // 2), None, None

    def stalled(self) -> bool:
        """Allow a few more requests, since none in flight is answered and more wait; return whether it changes."""
        if self.value >= min(self.most, _STALLED_LIMIT):
            return False
        self._round = None
        self.value, self._compared = min(2 * self.value, self.most), None
        return True


class Rate:
    """Limits how many requests may begin per second: unlimited until Athina answers 429, then a cubic curve.

    The curve stays close to the rate of the last cut for a long time, then probes for more, faster and faster. The
    first cut may come before the rate could be measured: after it, the rate doubles until the next cut.

    Many answers of 429 indicate a limit. A few that come at any rate do not depend on it, such as those of an erratic
    proxy, and slowing down for them would gain nothing.
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
        self._since_cut = 0  # answers of 429 since the last cut
        self._share = 0.0  # moving average of the share of 429
        self._passed: deque[float] = deque()  # the times of requests that passed within the last second

    def delay(self, now: float) -> float:
        """Reserve the next slot; return in how many seconds it is."""
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
        """Record an answer other than 429."""
        self._first = min(self._first, now)
        self._passed.append(now)
        while self._passed[0] <= now - 1.0:
            self._passed.popleft()
        if request.slowdowns == self.slowdowns or not self._cuts:
            self._in_a_row = 0
            self._share *= 1 - _WEIGHT

    def throttled(self, now: float, request: InFlight) -> bool:
        """Record an answer of 429; return whether the rate is cut.

        Requests that were already in flight at the last slowdown are ignored.
        """
        if self._cuts and request.slowdowns != self.slowdowns:
            return False
        self._share += (1 - self._share) * _WEIGHT
        self._in_a_row += 1
        self._since_cut += 1
        is_limit = self._cuts == 1 or self._share > _HIGH_SHARE or self._in_a_row == _IN_A_ROW
        if is_limit:
            self._cut(now)
        if self._in_a_row > 1:
            self.slowdowns += 1
            hold = _FIRST_HOLD_SECONDS * 2.0 ** min(self._in_a_row - 2, 10)
            self._next = max(self._next, now + min(hold, _LONGEST_HOLD_SECONDS))
        return is_limit

    def _cut(self, now: float) -> None:
        """Limit the rate to what passed in the last second: a rate limit may allow a burst beyond its rate."""
        if self._cuts != 1:
            self._ceiling = max(float(sum(1 for at in self._passed if at > now - 1.0)), 1.0)
            self._cuts += 1 if now - self._first < 1.0 else 2
        elif now - self._cut_at < _DOUBLING_SECONDS:
            self._ceiling = max(self.value / 2, 1.0)  # the measured rate was a burst
        else:
            self._ceiling = self.value
            self._cuts += 1
        self.slowdowns += 1
        self._cut_at, self._since_cut, self._share = now, 0, 0.0

    @property
    def is_mostly_throttled(self) -> bool:
        """Whether, for seconds, most answers have been 429."""
        return self._in_a_row >= _MOSTLY_THROTTLED


class _Suspects:
    """Entries with uncertain answers: the fault may be theirs, or that of what all share, the API key or the address.

    A firewall answers 403 or redirects if it dislikes a text; a wrong address does so for every text. So an entry is
    blamed only after others were tried: for a log, other logs, since feedback has its own endpoint, which may work
    while that for logs does not.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[Kind, str], tuple[int, int]] = {}  # → uncertain answers, successes before the first
        self._successes = self._taken = 0  # of all entries, and of logs alone
        self.uncertain_answers = 0
        """Uncertain answers since the last success that incriminate the API key or the address."""
        self._targets: set[str] = set()

    def succeeded(self, kind: Kind) -> None:
        """Record that Athina accepted or refused an entry."""
        self._successes += 1
        self._taken += kind == "log"

    def clear_key_and_address(self) -> None:
        """Forget what incriminated the API key and the address."""
        self.uncertain_answers = 0
        self._targets.clear()

    def blame(self, request: InFlight, status: int | None, *, tries: float, is_shut: bool) -> Verdict:
        """Return the cause of an uncertain answer: REFUSED: its entry; PAUSED: what all share; RETRY: not known yet.

        Args:
            request: the request that was answered.
            status: the answer's status.
            tries: the recent number of requests per success.
            is_shut: whether only probes are sent, so that other entries cannot be tried.
        """
        is_log = request.kind == "log" or status in _KEY_STATUSES
        taken = self._taken if is_log else self._successes
        answers, since = self._entries.pop((request.kind, request.reference), (0, taken))
        is_alone = since < taken and status != _UNAUTHORIZED  # a 401 is never about an entry
        if not is_alone and is_log:
            self.uncertain_answers += 1
        elif not is_alone:
            self._targets.add(request.reference)
        enough = _OUTAGE_FACTOR * tries if taken else 1 if status == _UNAUTHORIZED else _UNCERTAIN_ANSWERS
        is_shared = self.uncertain_answers >= enough or len(self._targets) >= _TARGETS
        is_tried = answers + 1 >= _TRIES * tries
        if is_tried and not (is_shared or is_shut) and (is_alone or not is_log):
            return Verdict.REFUSED
        self._entries[request.kind, request.reference] = answers + 1, since
        if len(self._entries) > _MOST_SUSPECTS:
            del self._entries[next(iter(self._entries))]
        return Verdict.PAUSED if is_shared else Verdict.RETRY


class _Failures:
    """The failures since the last success, and the average number of requests per success."""

    def __init__(self) -> None:
        self.tries = 1.0
        """The recent number of requests per success."""
        self._number = 0
        self._unreached = 0  # failures in a row without a connection
        self._since: float | None = None
        self._key: str | None = None  # of the last failure

    def add(self, key: str, outcome: Outcome) -> None:
        """Count a failed request for an entry of the ordering key `key`."""
        # An answer that only one key gets says something about its entry, not about Athina.
        if outcome.status is None or key != self._key:
            self._number += 1
            self._key = key
        is_reached = outcome.status is not None or outcome.possible_duplicate
        self._unreached = 0 if is_reached else self._unreached + 1

    def are_an_outage(self, limit: int) -> bool:
        """Return whether there are too many failures for chance, with up to `limit` requests in flight."""
        return self._number >= max(TRIP, _OUTAGE_FACTOR * self.tries, 2 * limit)

    def pause(self, now: float, quiet: float = _QUIET_SECONDS) -> float:
        """Return the seconds until the next probe; they grow with the square of the time without a success.

        `quiet`: the seconds until the pause is longest; fewer if the server cannot be reached.
        """
        if self._since is None:
            self._since = now
        if self._unreached >= _UNREACHED:
            quiet = min(max(_UNREACHED_SECONDS, _OUTAGE_FACTOR * self.tries), quiet)
        part = ((now - self._since) / quiet) ** 2
        return min(max(FIRST_PROBE_SECONDS, part * LONGEST_PROBE_SECONDS), LONGEST_PROBE_SECONDS)

    def end(self) -> int:
        """Forget the failures after a success; return how many requests it took."""
        took = self._number + 1
        self._number, self._unreached, self._since, self._key = 0, 0, None, None
        return took

    def learn(self, took: int) -> None:
        """Learn from a success, which took so many requests."""
        took = min(took, _MOST_TRIES)
        self.tries += (took - self.tries) * (_LEARNED if took > self.tries else _UNLEARNED)


class Gate:
    """A circuit breaker: decides whether anything is sent at all.

    An outage or a wrong key shuts it, any success opens it. While it is shut, one request at a time passes, as a probe.
    `paused` says why the key was refused, `outage` why nothing gets through; both are None if all is well.
    """

    def __init__(self, name: str, *, is_queue: bool) -> None:
        """`name`: the destination, for messages. For `is_queue` see `Concurrency`."""
        self._name = name
        self._is_queue = is_queue
        self.paused: str | None = None
        self.outage: str | None = None
        self.rejects_all_logs = False
        """Whether all logs are rejected: they do not reach Athina, or are refused whatever they hold."""
        self._until = 0.0  # when the next probe may be sent
        self._failures = _Failures()
        self._suspects = _Suspects()
        self._refused: set[str] = set()  # ordering keys of logs that were refused since one was accepted

    @property
    def is_shut(self) -> bool:
        """Whether only probes are sent."""
        return self.paused is not None or self.outage is not None

    @property
    def tries(self) -> float:
        """The recent number of requests per success."""
        return self._failures.tries

    def wait(self, now: float) -> float:
        """Return the seconds until a probe may be sent."""
        return max(0.0, self._until - now) if self.is_shut else 0.0

    def probe(self) -> None:
        """Let the next probe through at once, since a caller waits for it."""
        if self.paused is None:
            self._until = 0.0

    def succeeded(self, request: InFlight, now: float) -> None:
        """Record that Athina accepted an entry: all is well."""
        refused = 0
        if request.kind == "log":
            refused = len(self._refused)
            self._refused.clear()
        took = self._answered(request, now)
        if took:
            self._failures.learn(took + refused)

    def refused(self, request: InFlight, outcome: Outcome, now: float, *, chance: float) -> Verdict:
        """Record that Athina refused an entry for its content; return PAUSED if it refuses the logs of every session.

        Then the cause is not each log but something in between, or a change at Athina.
        """
        if request.kind == "log" and not self._is_queue:
            self._refused.add(request.key)
            if len(self._refused) >= _OUTAGE_FACTOR * self.tries:
                return self._shut_rejected(request, "refuses every log", outcome, now, chance=chance)
        self._answered(request, now)
        return Verdict.REFUSED

    def _answered(self, request: InFlight, now: float) -> int:
        """Open the gate, since Athina accepted or refused an entry; return how many requests that took.

        Returns 0, and leaves the gate shut, if this says nothing about other entries.
        """
        self._suspects.succeeded(request.kind)
        if self.rejects_all_logs and request.kind != "log":
            self._until = now + self._failures.pause(now, _REJECTED_SECONDS)  # feedback has its own endpoint
            return 0
        self.paused = self.outage = None
        self.rejects_all_logs = False
        self._suspects.clear_key_and_address()
        return self._failures.end()

    def failed(self, key: str, outcome: Outcome, now: float, *, chance: float, limit: int) -> None:
        """Record that an entry of the ordering key `key` has to be retried.

        Args:
            key: the entry's ordering key.
            outcome: the outcome of the request.
            now: monotonic seconds.
            chance: a random number, 0 to 1.
            limit: how many requests may be in flight.
        """
        self._failures.add(key, outcome)
        pause = self._failures.pause(now)
        if self._failures.are_an_outage(limit):
            reach = "accepts no logs at the moment" if outcome.status else "cannot be reached"
            self.outage = f"{self._name} {reach}: {outcome.status or 'no answer'}, {outcome.message}"
        if self.is_shut:
            # Up to a quarter of jitter, so that processes that lost Athina together do not all return at once.
            self._until = now + max(pause, outcome.retry_after or 0.0) * (1 + chance / 4)

    def asked_to_wait(self, outcome: Outcome, seconds: float, now: float) -> None:
        """Apply a `Retry-After` to all keys, since Athina answers most requests with 429."""
        self.outage = f"{self._name} asks to wait {seconds:g} seconds: {outcome.status}, {outcome.message}"
        self._until = now + seconds

    def suspected(self, request: InFlight, outcome: Outcome, now: float, *, chance: float) -> Verdict:
        """Record that an entry was rejected, by its own fault or that of the API key or the address."""
        is_key = outcome.status in _KEY_STATUSES
        if is_key:
            self._failures.add(request.key, outcome)
        blamed = self._suspects.blame(request, outcome.status, tries=self.tries, is_shut=self.is_shut)
        if blamed is Verdict.REFUSED:
            return blamed
        pause = self._failures.pause(now, _REJECTED_SECONDS)
        if is_key and (blamed is Verdict.PAUSED or self.paused):
            self.paused = f"status {outcome.status}: {outcome.message}"
            doublings = min(self._suspects.uncertain_answers, 20)
            self._until = now + min(FIRST_PROBE_SECONDS * 2.0**doublings, LONGEST_PAUSE_SECONDS)
            return Verdict.PAUSED
        if blamed is Verdict.PAUSED:
            return self._shut_rejected(request, "accepts nothing at this address", outcome, now, chance=chance)
        if not self.is_shut:
            return Verdict.RETRY
        self._until = now + pause * (1 + chance / 4)
        return Verdict.PAUSED

    def _shut_rejected(self, request: InFlight, what: str, outcome: Outcome, now: float, *, chance: float) -> Verdict:
        self.rejects_all_logs |= request.kind == "log"
        self.outage = f"{self._name}, or another server in its place, {what}: {outcome.status}, {outcome.message}"
        self._until = now + self._failures.pause(now, _REJECTED_SECONDS) * (1 + chance / 4)
        return Verdict.PAUSED


class Concurrency:
    """The controller. Each request starts with `begin`, and its outcome is passed to `end`."""

    def __init__(self, most: int, name: str = "Athina", *, is_queue: bool = False) -> None:
        """Start.

        Args:
            most: the maximum of requests in flight; 0 if none is ever sent.
            name: the destination, for messages.
            is_queue: whether a log that is kept blocks all logs behind it, of any session.
        """
        self.gate = Gate(name, is_queue=is_queue)
        self.latency = Histogram()
        """Seconds from the start of a request to its answer or failure."""
        self._limit = Limit(most)
        self._rate = Rate()
        self._in_flight: set[InFlight] = set()
        self._latest: deque[float] = deque(maxlen=_LATEST)  # the seconds until the latest answers
        self._ticket = 0  # grows with each change: requests that began before it say nothing about the state since

    @property
    def in_flight(self) -> int:
        """How many requests have begun and not ended."""
        return len(self._in_flight)

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return self._limit.value

    def window(self, least: int) -> int:
        """Return how many ordering keys may be leased: `least` or more; one for a probe; 0 if none is ever sent."""
        if self.gate.is_shut:
            return 1
        return max(least, 2 * self.limit) if self.limit else 0

    def begin(self, now: float, key: str, reference: str, kind: Kind = "log") -> InFlight:
        """Begin a request at `now`; the result says when to send it."""
        delay = self._rate.delay(now)
        request = InFlight(key, reference, kind, self._ticket, now + delay, delay > 0, self._rate.slowdowns)
        self._in_flight.add(request)
        return request

    def end(
        self, request: InFlight, outcome: Outcome, now: float, *, waiting: bool, chance: float, share: float = 0.0
    ) -> Verdict:
        """Record the outcome of a request; return the verdict on its log.

        Args:
            request: the result of `begin`.
            outcome: the outcome of the request.
            now: monotonic seconds.
            waiting: whether there is more to send than may be in flight.
            chance: a random number, 0 to 1.
            share: our threads' share of the CPU time of a compute-bound program, 0 to 1.
        """
        self._in_flight.discard(request)
        seconds = now - request.begins
        if outcome.status is not None:
            self._latest.append(seconds)
        self.latency.observe(seconds)
        found, is_current, was_shut = verdict(outcome.status), request.ticket == self._ticket, self.gate.is_shut
        if found is Verdict.UNCERTAIN:
            found = self.gate.suspected(request, outcome, now, chance=chance)
        elif found in (Verdict.REFUSED, Verdict.TRUNCATE):  # it was truncated as far as possible
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
            self._ticket += self._limit.record(now, seconds, good=good, unanswered=self._in_flight, share=share)
        return found

    def abandon(self, request: InFlight) -> None:
        """Forget a request that will never end, since its sender died."""
        self._in_flight.discard(request)

    def _failed(self, request: InFlight, outcome: Outcome, now: float, chance: float) -> None:
        if outcome.status == THROTTLED:
            if self._rate.throttled(now, request):
                # Else hundreds of requests would wait for their slots, and not notice the next cut.
                self._ticket += 1
                self._limit.halve()
            if not self._rate.is_mostly_throttled:
                return
            if outcome.retry_after:
                self.gate.asked_to_wait(outcome, outcome.retry_after * (1 + chance / 4), now)
                return
        self.gate.failed(request.key, outcome, now, chance=chance, limit=self.limit)

    def is_any_hanging(self, now: float) -> bool:
        """Return whether a request in flight already takes much longer than the quickest did lately."""
        longest = max(HANGING_SECONDS, _HANGING * min(self._latest, default=0.0))
        return any(now - each.begins > longest for each in self._in_flight)

    def stalled(self) -> None:
        """Record that no request in flight has been answered for long while more wait."""
        self._ticket += self._limit.stalled()
