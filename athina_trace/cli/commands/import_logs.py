"""`import`: send logs from a file, such as one written by `export`, or from OpenAI's stored history."""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from athina_trace._delivery.entry import Entry, log_entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._pipeline.wire import to_wire
from athina_trace.cli.openai_history import History
from athina_trace.cli.options import add_outbox, open_file, outbox_path
from athina_trace.cli.terminal import CommandError, Terminal, UsageError
from athina_trace.inference_log import InferenceLog
from athina_trace.schema import ALIASES, FIELDS, attributes_of, nearest
from athina_trace.settings import Settings
from athina_trace.viewer import formatting, queries
from athina_trace.viewer.filters import parse_time

_CHUNK = 500
"""Logs in each transaction."""
_MAX_PROBLEMS = 10
"""Maximum number of invalid lines to list."""


class Candidate(NamedTuple):
    """One line of the file.

    Attributes:
        fields: the log, which is sent unchanged.
        made: seconds since the epoch; None if the file does not say.
        was_delivered: whether the file says that Athina has it.
    """

    fields: dict[str, Any]
    made: float | None
    was_delivered: bool


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "import",
        help="send logs from a file, or from OpenAI",
        description="Put the logs in a file of JSON lines into the outbox, to be sent: lines written by `export`, or "
        "objects with Athina's field names. The whole file is checked first. Logs that were imported before are left "
        "out, so an interrupted import can simply be repeated. Hooks, masks and sampling are not applied. Athina "
        "stamps logs with the time of their arrival; the time when they were made is in custom_attributes.",
    )
    command.add_argument("file", type=Path, nargs="?", metavar="FILE", help="JSON lines")
    command.add_argument(
        "--openai",
        nargs="*",
        metavar="ID",
        help="instead of a file, import what OpenAI or a compatible server has stored: conversations, responses, "
        "threads and chat completions by id; without an id, all stored chat completions (needs the package openai)",
    )
    command.add_argument("--delivered", action="store_true", help="also import logs that the file marks as delivered")
    command.add_argument("--dry-run", action="store_true", help="check and count, but import nothing")
    command.add_argument("--yes", action="store_true", help="do not ask")
    add_outbox(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Check the file, ask, and import new logs."""
    if (options.file is None) == (options.openai is None):
        raise UsageError("import takes either a file or --openai")
    if options.openai is None:
        _import(options.file, options, terminal)
        return 0
    with tempfile.TemporaryDirectory(prefix="athina_trace-") as folder:
        file = Path(folder) / "openai.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            for number, log in enumerate(History().logs(options.openai), 1):
                lines.write(json.dumps(log) + "\n")
                terminal.progress(f"{number} answers read")
        terminal.progress("")
        _import(file, options, terminal)
    return 0


def _import(file: Path, options: argparse.Namespace, terminal: Terminal) -> None:
    path = outbox_path(options.outbox)
    plan = _plan(file, path, terminal, with_delivered=options.delivered)
    logs, sessions = formatting.integer(len(plan.references)), formatting.integer(len(plan.sessions))
    terminal.say(f"{logs} new logs of {sessions} sessions, {formatting.byte_size(plan.size)}")
    terminal.say(f"their calls cost {formatting.money(plan.cost)}" if plan.cost else "the file names no cost")
    if plan.delivered:
        delivered = formatting.integer(plan.delivered)
        terminal.say(f"{delivered} were delivered before and are left out; --delivered includes them")
    if options.dry_run or not plan.references:
        return
    terminal.say("Each counts towards your plan at Athina, and is evaluated by whatever runs on all new logs.")
    if not options.yes and not (terminal.can_ask and terminal.ask(f"Import {logs} logs into {path}?")):
        raise CommandError("nothing was imported; to import without being asked, add --yes")
    done = _put(path, file, plan.references, terminal)
    terminal.say(f"{formatting.integer(done)} imported; a running program sends them, or `athina-trace flush`")


class Plan(NamedTuple):
    """The logs that an import would send.

    Attributes:
        references: the new logs.
        sessions: their sessions.
        cost: what their calls cost, dollars.
        size: their size in bytes.
        delivered: the number of logs that are left out, since the file says that Athina has them.
    """

    references: set[str]
    sessions: set[str]
    cost: float
    size: int
    delivered: int


def _plan(file: Path, path: str, terminal: Terminal, *, with_delivered: bool) -> Plan:
    """Read the whole file. Raises `CommandError` if a line is invalid, or the outbox lacks space."""
    problems: list[str] = []
    references: set[str] = set()
    sessions: set[str] = set()
    cost, size, delivered = 0.0, 0, 0
    with open_file(path, terminal) as outbox, outbox.open() as db:
        imported = queries.imported(db)
        for number, candidate in _read(file):
            if isinstance(candidate, str):
                problems.append(f"line {number}: {candidate}")
                continue
            fields = candidate.fields
            reference = fields["external_reference_id"]
            if candidate.was_delivered and not with_delivered:
                delivered += 1
            elif _digest(reference) not in imported and not queries.has_log(db, reference):
                references.add(reference)
                sessions.add(fields.get("session_id") or reference)
                cost += fields.get("cost") or 0.0
                size += len(json.dumps(fields))
        used = queries.outbox_status(db).bytes
    if problems:
        listed = "\n  ".join(problems[:_MAX_PROBLEMS])
        more = f"\n  and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise CommandError(f"nothing was imported, since {file} has invalid lines:\n  {listed}{more}")
    limit = Settings.build().max_outbox_bytes
    if used + size > limit:
        # Beyond the limit, new logs of running programs would be dropped.
        raise CommandError(
            f"nothing was imported: {formatting.byte_size(size)} do not fit into the outbox, which may hold "
            f"{formatting.byte_size(limit)}; raise ATHINA_MAX_OUTBOX_BYTES or split the file"
        )
    return Plan(references, sessions, cost, size, delivered)


def _read(file: Path) -> Iterator[tuple[int, Candidate | str]]:
    """Yield each line's number and its log, or a description of its error."""
    seen: dict[str, int] = {}
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = from_json(line)
            except ValueError as error:
                yield number, f"not JSON: {error}"
                continue
            # A log without a reference is identified by its text, and by how often that has occurred before.
            seen[line] = seen.get(line, 0) + 1
            own = hashlib.sha256(f"{seen[line]}{line.strip()}".encode()).hexdigest()[:32]
            yield number, _candidate(record, f"import-{own}")


def _candidate(record: Any, reference: str) -> Candidate | str:
    """Turn a line's JSON into a log, or a description of its error."""
    if not isinstance(record, dict):
        return f"a JSON object is needed, not {type(record).__name__}"
    # `export` puts the log inside an object; other files have the log itself.
    exported = isinstance(record.get("log"), dict)
    given: dict[str, Any] = (
        record["log"] if exported else {name: value for name, value in record.items() if name != "made_at"}
    )
    fields = {ALIASES.get(name, name): value for name, value in given.items() if value is not None}
    if unknown := [name for name in fields if name not in FIELDS]:
        return f"unknown field {unknown[0]!r}{nearest(unknown[0])}"
    if missing := [name for name in ("language_model_id", "prompt", "response") if name not in fields]:
        return f"{' and '.join(missing)} missing"
    made = record.get("made_at")
    if isinstance(made, str):
        made = parse_time(made)
        if made is None:
            return f"made_at {record['made_at']!r} is not a time"
    try:
        InferenceLog.of(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    fields.setdefault("external_reference_id", (exported and record.get("external_reference_id")) or reference)
    fields["external_reference_id"] = str(fields["external_reference_id"])
    if made is not None:
        fields["custom_attributes"] = {**fields.get("custom_attributes", {}), "made_at": formatting.iso_time(made)}
    if "custom_attributes" in fields:
        fields["custom_attributes"] = attributes_of(fields["custom_attributes"])
    return Candidate(to_wire(fields), made, exported and record.get("state") == "delivered")


def _put(path: str, file: Path, references: set[str], terminal: Terminal) -> int:
    """Put the logs with these references into the outbox, one transaction for each chunk; return how many."""
    left, done, now = set(references), 0, time.time()

    def new_entries() -> Iterator[Entry]:
        for _, candidate in _read(file):
            if isinstance(candidate, Candidate) and candidate.fields["external_reference_id"] in left:
                left.remove(candidate.fields["external_reference_id"])
                yield log_entry(candidate.fields, now if candidate.made is None else candidate.made)

    entries = new_entries()
    with closing(SqliteOutbox(path)) as outbox:
        while chunk := list(islice(entries, _CHUNK)):
            # In the same transaction as the logs, so that each is imported once even if this process is killed. The
            # digests remain when the logs have been delivered and deleted.
            with outbox.transaction():
                outbox.store.add(chunk)
                digests = " ".join(_digest(entry.reference) for entry in chunk)
                outbox.store.note(f"{queries.IMPORTED}{chunk[0].reference}", digests, now)
            done += len(chunk)
            terminal.progress(f"{done} of {len(references)} imported")
    terminal.progress("")
    return done


def _digest(reference: str) -> str:
    return hashlib.sha256(reference.encode("utf-8", "replace")).hexdigest()[:16]
