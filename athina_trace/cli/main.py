"""The entry point: parse the arguments, run the command, turn failures into a message and an exit code."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence

from athina_trace import __version__
from athina_trace._delivery.sqlite import sqlite3
from athina_trace.cli.commands import (
    check,
    completion,
    demo,
    export,
    flush,
    gateway,
    import_logs,
    logs,
    purge,
    relay,
    retry,
    serve,
    sessions,
    show,
    status,
    ui,
)
from athina_trace.cli.terminal import CommandError, Terminal, UsageError
from athina_trace.errors import SettingsError

DONE, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130

_COMMANDS = {
    "demo": demo, "ui": ui, "serve": serve, "gateway": gateway, "logs": logs, "sessions": sessions, "show": show,
    "status": status, "flush": flush, "retry": retry, "export": export, "purge": purge, "check": check,
    "relay": relay, "import": import_logs, "completion": completion,
}  # fmt: skip
_DESCRIPTION = "Inspect logs, send them, receive logs from other programs, and run a local Athina."
_EPILOG = """\
exit codes:
  0    success (also if the reader of a pipe stopped reading)
  1    failure: no such log, a log was not sent, a check failed
  2    wrong options or settings, or missing packages
  130  stopped by Ctrl-C

Settings come from the environment, such as ATHINA_API_KEY, ATHINA_BASE_URL and ATHINA_OUTBOX.
Every command works on the outbox of a running program without disturbing it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    terminal = Terminal()
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        code = options.run(options, terminal)
        terminal.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `export | head` is not an error. Python would complain at exit about buffered output without a reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (UsageError, SettingsError) as error:
        terminal.complain(str(error))
        return USAGE
    except OSError as error:  # including `OutboxError`
        terminal.complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        return PROBLEM
    except (CommandError, sqlite3.Error) as error:
        terminal.complain(str(error))
        return PROBLEM
    return int(code or DONE)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. An error in it ends the process with exit code 2, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="athina-trace",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"athina-trace {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS.values():
        module.add(commands)
    # argparse would list all commands instead of suggesting one. No option before the command takes a value, so the
    # first argument that is not an option is the command.
    given = next((each for each in arguments if not each.startswith("-")), None)
    if given is not None and given not in _COMMANDS:
        nearest = difflib.get_close_matches(given, _COMMANDS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "`athina-trace --help` lists them"
        parser.error(f"there is no command {given!r}; {hint}")
    return parser.parse_args(arguments)
