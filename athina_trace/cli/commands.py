"""All commands: their names, their options, and what becomes of their failures."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence

from athina_trace.cli import changing, checking, looking, sending, serving
from athina_trace.cli.terminal import Failure, Terminal
from athina_trace.errors import OutboxError, SettingsError

DONE, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = "Look at what was logged, send it, and play Athina's part on this machine."
_EPILOG = """\
exit codes:
  0    done (also where the reader of a pipe has seen enough)
  1    it did not come out as asked: nothing of that name, not everything sent, a check failed
  2    wrong options or settings, or packages are missing
  130  stopped by Ctrl-C

Settings come from the environment, such as ATHINA_API_KEY, ATHINA_BASE_URL and ATHINA_OUTBOX.
Every command works on the outbox of a running program without disturbing it.
"""


def run(arguments: Sequence[str] | None) -> int:
    """Parse, do, and turn what went wrong into a sentence and an exit code."""
    terminal = Terminal()
    try:
        given = parser().parse_args(arguments)
        code = given.run(given, terminal)
        terminal.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whatever is still buffered has no reader: python would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SettingsError as error:
        terminal.complain(str(error))
        return USAGE
    except (Failure, OutboxError, OSError, sqlite3.Error) as error:
        terminal.complain(str(error))
        return PROBLEM
    return int(code or DONE)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = argparse.ArgumentParser(
        prog="athina-trace",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for room in (serving, looking, sending, changing, checking):
        room.add(commands)
    return made
