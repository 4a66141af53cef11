"""Creates the streams and consumers of a relay, and checks that their settings do not lose logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from nats.aio.client import Client as NatsClient

from athina_trace.relay.connection import ApiError, NoAnswerError, api
from athina_trace.relay.names import DEFAULT_PARTITIONS, Names

SECOND: Final = 1_000_000_000
"""JetStream's API counts in nanoseconds."""
_NOT_FOUND = 404
_REFUSED_SECONDS = 30 * 86_400
_REFUSED_SHARE = 4
"""The stream of refused logs may use a quarter of the stream's maximum size."""
_LEAST_WINDOW_SECONDS = 120
_ELECTION_SECONDS = 20.0
"""How long to wait for consumers without a leader: servers elect one within ten seconds."""
SYNC_NOTE: Final = (
    "By default a server syncs to its disk every two minutes (sync_interval): if its machine loses power, it loses the "
    "logs acknowledged since then, unless other replicas have them. Set `jetstream { sync_interval: always }`, or "
    "use 3 replicas on machines that do not fail together. A client cannot see this setting"
)


@dataclass(frozen=True)
class Wanted:
    """The requested settings of a relay; None keeps the current setting, or uses the default."""

    partitions: int | None = None
    replicas: int | None = None
    max_bytes: int | None = None
    duplicate_seconds: float | None = None
    ack_wait_seconds: float | None = None


@dataclass
class Findings:
    """What a set-up found and did. Nothing must be published while there are `faults`."""

    made: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


async def set_up(client: NatsClient, names: Names, wanted: Wanted) -> Findings:
    """Create what is missing, apply requested changes, and check the rest. Raises `ApiError` and `NoAnswerError`."""
    found = Findings()
    info = await _info(client, names.stream)
    if info is None:
        config = _new_stream(names, wanted)
        await api(client, f"STREAM.CREATE.{names.stream}", config)
        found.made.append(f"stream {names.stream}")
    else:
        await _change(client, names, wanted, info, found)
    config = (await api(client, f"STREAM.INFO.{names.stream}"))["config"]
    found.faults.extend(stream_faults(config))
    if not found.faults:
        await _make_refused(client, names, config, found)
        await _make_consumers(client, names, wanted, config, found)
    found.notes.extend(_notes(config))
    found.facts = {
        "stream": names.stream,
        "partitions": len(config["subjects"]),
        "storage": config["storage"],
        "replicas": config["num_replicas"],
        "max_bytes": config["max_bytes"],
        "when full": f"{config['discard']} logs are refused" if config["discard"] == "new" else "old logs are lost",
        "duplicate window": f"{config['duplicate_window'] / SECOND:g} s",
    }
    return found


async def _info(client: NatsClient, stream: str) -> dict[str, Any] | None:
    try:
        return await api(client, f"STREAM.INFO.{stream}")
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        return None


def _new_stream(names: Names, wanted: Wanted) -> dict[str, Any]:
    return {
        "name": names.stream,
        "description": "logs on their way to Athina, made by `athina-trace relay --setup`",
        "subjects": names.subjects(wanted.partitions or DEFAULT_PARTITIONS),
        # Logs that a worker acknowledged are deleted; others stay.
        "retention": "workqueue",
        "storage": "file",
        "discard": "new",
        "max_bytes": wanted.max_bytes or 1_000_000_000,
        "num_replicas": wanted.replicas or 1,
        "duplicate_window": int((wanted.duplicate_seconds or 600) * SECOND),
        "allow_direct": True,
    }


async def _change(client: NatsClient, names: Names, wanted: Wanted, info: dict[str, Any], found: Findings) -> None:
    """Apply requested changes to an existing stream, if that loses no logs."""
    config = dict(info["config"])
    asked = {
        "num_replicas": wanted.replicas,
        "max_bytes": wanted.max_bytes,
        "duplicate_window": wanted.duplicate_seconds and int(wanted.duplicate_seconds * SECOND),
    }
    changes: dict[str, Any] = {
        name: value for name, value in asked.items() if value is not None and value != config[name]
    }
    if wanted.partitions is not None and wanted.partitions != len(config["subjects"]):
        if info["state"]["messages"]:
            found.faults.append(
                f"the stream holds {info['state']['messages']} logs: another number of partitions would split "
                "their conversations; let the workers empty it first, then set it up again"
            )
        else:
            changes["subjects"] = names.subjects(wanted.partitions)
    if changes and not found.faults:
        await api(client, f"STREAM.UPDATE.{names.stream}", {**config, **changes})
        found.made.extend(f"stream {names.stream}: {name} changed" for name in changes)


def stream_faults(config: dict[str, Any]) -> list[str]:
    """Return the settings of a stream that would lose logs, each with the right value."""
    rules = [
        (
            config["retention"] == "workqueue",
            "retention",
            "workqueue",
            "logs would never be deleted, or be deleted too early",
        ),
        (config["storage"] == "file", "storage", "file", "a restart of the server would lose all logs"),
        (config["discard"] == "new", "discard", "new", "a full stream would lose its oldest logs"),
        (not config.get("max_age"), "max_age", "0", "logs that wait too long would be lost"),
        (not config.get("no_ack"), "no_ack", "false", "programs could not tell whether a log was stored"),
        (not config.get("sealed"), "sealed", "false", "nothing could be published"),
        (
            config.get("max_msgs_per_subject", -1) <= 0,
            "max_msgs_per_subject",
            "-1",
            "a partition would hold no more logs than that",
        ),
    ]
    return [
        f"the stream's {name} is {config.get(name)!r} and must be {right}: {why}"
        for is_right, name, right, why in rules
        if not is_right
    ]


def consumer_faults(config: dict[str, Any]) -> list[str]:
    """Return the settings of a partition's consumer that would lose logs, or mix them up."""
    name = config.get("durable_name") or config.get("name")
    rules = [
        (
            config.get("ack_policy") == "explicit",
            "ack_policy",
            "explicit",
            "logs would count as delivered before they are",
        ),
        (config.get("max_ack_pending") == 1, "max_ack_pending", "1", "conversations would be out of order"),
        (config.get("max_deliver", -1) == -1, "max_deliver", "-1", "logs would be given up after that many attempts"),
        (not config.get("deliver_subject"), "deliver_subject", "empty", "workers pull"),
    ]
    return [
        f"the consumer {name}'s {setting} is {config.get(setting)!r} and must be {right}: {why}"
        for is_right, setting, right, why in rules
        if not is_right
    ]


def _notes(config: dict[str, Any]) -> Iterator[str]:
    if config["num_replicas"] == 1:
        yield "One replica: the logs are on one server's disk. In a cluster of three servers or more, use --replicas 3"
    if config["max_bytes"] <= 0:
        yield "The stream has no limit (max_bytes): it may fill the disk of its server"
    if config["duplicate_window"] < _LEAST_WINDOW_SECONDS * SECOND:
        yield "The duplicate window is short: a log whose acknowledgement was lost may be stored twice"
    yield SYNC_NOTE


async def _make_refused(client: NatsClient, names: Names, config: dict[str, Any], found: Findings) -> None:
    if await _info(client, names.refused_stream) is not None:
        return
    refused = {
        "name": names.refused_stream,
        "description": "logs that Athina refused: see `athina-trace logs --relay`",
        "subjects": [names.refused_subject],
        "retention": "limits",
        "storage": "file",
        # As in an outbox, refused logs must never prevent other logs from being delivered.
        "discard": "old",
        "max_bytes": config["max_bytes"] // _REFUSED_SHARE if config["max_bytes"] > 0 else -1,
        "max_age": _REFUSED_SECONDS * SECOND,
        "num_replicas": config["num_replicas"],
        "allow_direct": True,
    }
    await api(client, f"STREAM.CREATE.{names.refused_stream}", refused)
    found.made.append(f"stream {names.refused_stream}")


async def _make_consumers(
    client: NatsClient, names: Names, wanted: Wanted, config: dict[str, Any], found: Findings
) -> None:
    """Create one consumer for each partition, and delete those of removed partitions."""
    there = await _all_consumers(client, names)
    needed = {names.consumer(number): number for number in range(len(config["subjects"]))}
    ack_wait = int(wanted.ack_wait_seconds * SECOND) if wanted.ack_wait_seconds else None
    made = 0
    for name, number in needed.items():
        present = there.get(name)
        if present is not None:
            faults = consumer_faults(present)
            found.faults.extend(faults)
            if faults or ack_wait in (None, present["ack_wait"]):
                continue
        consumer = present or {
            "durable_name": name,
            "filter_subject": names.subject(number),
            "ack_policy": "explicit",
            # One at a time, across all workers, to keep conversations in order.
            "max_ack_pending": 1,
            "max_deliver": -1,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_wait": 30 * SECOND,
            "num_replicas": 0,
        }
        consumer = {**consumer, **({"ack_wait": ack_wait} if ack_wait else {})}
        await api(
            client,
            f"CONSUMER.DURABLE.CREATE.{names.stream}.{name}",
            {"stream_name": names.stream, "config": consumer},
        )
        made += 1
    for name in there.keys() - needed.keys():
        await api(client, f"CONSUMER.DELETE.{names.stream}.{name}")
    if made:
        found.made.append(f"{made} consumers")


async def _all_consumers(client: NatsClient, names: Names) -> dict[str, dict[str, Any]]:
    """Return the settings of all consumers by name, when each has a leader. Raises `NoAnswerError` if one has none."""
    ends = time.monotonic() + _ELECTION_SECONDS
    while (there := await consumers(client, names)).silent:
        if time.monotonic() > ends:
            raise NoAnswerError(there.silence)
    return {name: each["config"] for name, each in there.known.items()}


class Consumers(NamedTuple):
    """The consumers of a stream.

    Attributes:
        known: JetStream's information about each, by name.
        silent: names of those whose leader does not answer, for example while a server is down.
    """

    known: dict[str, dict[str, Any]]
    silent: frozenset[str]

    @property
    def silence(self) -> str:
        """The error about silent consumers, and the remedy; empty if there are none."""
        if not self.silent:
            return ""
        return (
            f"no NATS server leads {', '.join(sorted(self.silent))} at the moment: their logs wait until another takes "
            "over, which takes seconds; if this lasts, start the server that is down"
        )


async def consumers(client: NatsClient, names: Names) -> Consumers:
    """Return all consumers of the stream; JetStream waits four seconds for silent ones."""
    known: dict[str, dict[str, Any]] = {}
    silent: set[str] = set()
    while True:
        offset = len(known) + len(silent)
        page = await api(client, f"CONSUMER.LIST.{names.stream}", {"offset": offset})
        known |= {each["name"]: each for each in page["consumers"] or ()}
        silent.update(page.get("missing") or ())
        # A page without a new name would be returned again and again.
        if len(known) + len(silent) in (offset, page["total"]):
            return Consumers(known, frozenset(silent))


def partition_faults(names: Names, partitions: int, there: Consumers) -> list[str]:
    """Return errors in the consumers of these partitions; silent ones are assumed to be right."""
    faults: list[str] = []
    for number in range(partitions):
        name = names.consumer(number)
        if name in there.known:
            faults += consumer_faults(there.known[name]["config"])
        elif name not in there.silent:
            faults.append(f"partition {number} has no consumer: run `athina-trace relay --setup`")
    return faults
