"""`completion`: print a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from athina_trace.cli.terminal import Terminal

_FILES = ("PATH", "FILE")
"""Placeholders that stand for a file."""


class Option(NamedTuple):
    """An option of a command: whether it takes a value, which values, and whether they are files."""

    name: str
    description: str
    takes_value: bool
    values: list[str]
    is_file: bool


class Command(NamedTuple):
    """A command: the words that may follow it, and whether one of them is a file."""

    name: str
    description: str
    options: list[Option]
    words: list[str]
    takes_file: bool


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "completion",
        help="print a script that completes commands and options",
        description="Print a script that completes commands and options. "
        'In bash: eval "$(athina-trace completion bash)". In zsh the same, after compinit. '
        "In fish: athina-trace completion fish | source.",
    )
    command.add_argument("shell", choices=_SCRIPTS)
    command.set_defaults(run=partial(run, commands=commands))


def run(options: argparse.Namespace, terminal: Terminal, *, commands: Any) -> int:
    """Print the script."""
    descriptions = {action.dest: action.help for action in commands._choices_actions}  # noqa: SLF001 - no other way
    terminal.say(_SCRIPTS[options.shell](describe(commands.choices, descriptions)).rstrip())
    return 0


def describe(parsers: Mapping[str, argparse.ArgumentParser], descriptions: Mapping[str, str]) -> list[Command]:
    """Read the commands and options from their parsers, so that new options are included."""
    found: list[Command] = []
    for name, parser in parsers.items():
        options = [
            Option(
                next(each for each in action.option_strings if each.startswith("--")),
                (action.help or "").replace("%(default)s", str(action.default)),
                action.nargs != 0,
                list(map(str, action.choices or ())),
                action.metavar in _FILES,
            )
            for action in parser._actions  # noqa: SLF001 - argparse has no public list of a parser's options
            if action.option_strings
        ]
        operands = [action for action in parser._actions if not action.option_strings]  # noqa: SLF001 - as above
        words = [str(word) for action in operands for word in action.choices or ()]
        takes_file = any(action.metavar in _FILES for action in operands)
        found.append(Command(name, descriptions[name], options, words, takes_file))
    return found


def bash_script(commands: list[Command]) -> str:
    """Return the script for bash 3 and later, which does not show descriptions."""
    names = " ".join(command.name for command in commands)
    values: list[str] = []
    options: list[str] = []
    for command in commands:
        words = shlex.quote(" ".join([*(each.name for each in command.options), *command.words]))
        options.append(f"    {command.name}) words={words}{' files=1' * command.takes_file} ;;")
        for option in command.options:
            if option.takes_value:
                case = f"{command.name} {option.name}"
                reply = f'-W "{" ".join(option.values)}"' if option.values else "-f" if option.is_file else "-W ''"
                values.append(f'    "{case}") COMPREPLY=($(compgen {reply} -- "$cur")); return ;;')
    return f"""\
_athina_trace() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD - 1]}}" words="" files=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{names}" -- "$cur"))
    return
  fi
  case "${{COMP_WORDS[1]}} $prev" in
{chr(10).join(values)}
  esac
  case "${{COMP_WORDS[1]}}" in
{chr(10).join(options)}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur") $([ -z "$files" ] || compgen -f -- "$cur"))
}}
complete -F _athina_trace athina-trace
"""


def zsh_script(commands: list[Command]) -> str:
    """Return the script for zsh, to be sourced or saved as `_athina-trace` in the function path."""

    def quoted(text: str) -> str:
        # Brackets and colons have a special meaning for _arguments and _describe.
        return text.replace("\\", "\\\\").replace(":", r"\:").replace("[", r"\[").replace("]", r"\]")

    names = " ".join(shlex.quote(f"{command.name}:{quoted(command.description)}") for command in commands)
    cases: list[str] = []
    for command in commands:
        specifications: list[str] = []
        for option in command.options:
            value = f"({' '.join(option.values)})" if option.values else "_files" if option.is_file else " "
            argument = f":value:{value}" if option.takes_value else ""
            specifications.append(shlex.quote(f"{option.name}[{quoted(option.description)}]{argument}"))
        if command.words:
            specifications.append(shlex.quote(f":word:({' '.join(command.words)})"))
        specifications += ["':file:_files'"] * command.takes_file
        cases.append(f"    {command.name}) _arguments {' '.join(specifications)} ;;")
    return f"""\
#compdef athina-trace
_athina_trace() {{
  local -a commands=({names})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
{chr(10).join(cases)}
  esac
}}
compdef _athina_trace athina-trace
"""


def fish_script(commands: list[Command]) -> str:
    """Return the script for fish."""
    lines = ["complete -c athina-trace -f"]
    for command in commands:
        description = shlex.quote(command.description)
        lines.append(f"complete -c athina-trace -n __fish_use_subcommand -a {command.name} -d {description}")
        follows = f"complete -c athina-trace -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{follows} -a {shlex.quote(' '.join(command.words))}"] * bool(command.words)
        lines += [f"{follows} -F"] * command.takes_file
        for option in command.options:
            # -x: a value that is not a file; -r -F: a file.
            values = f" -x -a {shlex.quote(' '.join(option.values))}" if option.values else " -x"
            argument = "" if not option.takes_value else " -r -F" if option.is_file else values
            name, description = option.name.removeprefix("--"), shlex.quote(option.description)
            lines.append(f"{follows} -l {name}{argument} -d {description}")
    return "\n".join(lines)


_SCRIPTS: dict[str, Callable[[list[Command]], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
