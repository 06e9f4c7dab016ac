"""The man page, made of `--help` and the settings: `python -m blocksd.cli.manual > daemon/man/blocksd.1`."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from importlib.metadata import version
from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from blocksd.cli.main import cli
from blocksd.settings.config import SETTINGS, TABLES
from blocksd.settings.loading import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WIDTH = 100  # of the source, not of what is shown
_COMMON = 5  # an option of so many commands is described once

_ENVIRONMENT = (
    ("BLOCKSD_CONFIG", "The file of settings, instead of those under FILES."),
    (
        "STATE_DIRECTORY, XDG_STATE_HOME",
        "The place of the state directory, unless `state_dir` is set. systemd sets the first.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        f"The directory of systemd's credentials: `{CREDENTIALS['redis']}` is the URL of Redis, `{CREDENTIALS['tokens']}` the tokens.",
    ),
    ("XDG_CONFIG_HOME", "Replaces ~/.config under FILES."),
    ("VISUAL, EDITOR", "The editor for a value that is not given on a terminal."),
    ("NOTIFY_SOCKET", "The socket by which `blocksd run` notifies systemd."),
)
_FILES = (
    (
        "blocksd.toml, ~/.config/blocksd/blocksd.toml, /etc/blocksd/blocksd.toml",
        "Settings; the first file that exists.",
    ),
    (
        "~/.local/state/blocksd/NAMESPACE",
        "The state directory: `journal.db`; for the embedded server, `redis` and, with its password, `redis-url`.",
    ),
)


def page() -> str:
    """Return the man page blocksd(1), in the macros of man(7) and in ASCII."""
    context = click.Context(cli, info_name="blocksd", **cli.context_settings)
    commands = list(_walk(context))
    common = _common(commands)
    lines = [
        f'.TH BLOCKSD 1 "" "blocksd {version("blocksd")}" "blocksd"',
        ".ad l",
        ".SH NAME",
        _roff(f"blocksd - {_uncapitalized(cli.get_short_help_str(limit=100).rstrip('.'))}"),
        ".SH SYNOPSIS",
        *"\n.br\n".join(map(_usage, commands)).splitlines(),
        ".SH DESCRIPTION",
        *_text(cli.help or ""),
        ".SH COMMANDS",
        *(line for one in commands for line in _command(one, common)),
        ".SH OPTIONS",
        *_items((_declared(names), meaning) for names, meaning in (*_options(context), _help(context))),
        '.SH "COMMON OPTIONS"',
        *_items((_declared(names), meaning) for names, meaning in common),
        ".SH SETTINGS",
        *_settings(),
        ".SH ENVIRONMENT",
        *_items((_bold(name), meaning) for name, meaning in _ENVIRONMENT),
        ".SH FILES",
        *_items((_italic(name), meaning) for name, meaning in _FILES),
        '.SH "EXIT STATUS"',
        *_items((_bold(code), meaning) for code, meaning in re.findall(r"(\d) ([^,.]+)", cli.epilog or "")),
        '.SH "SEE ALSO"',
        r".BR redis\-cli (1),",
        r".BR systemd.service (5)",
    ]
    return "\n".join(lines) + "\n"


def _walk(above: click.Context) -> Iterator[click.Context]:
    """Yield the commands of a group, and those of the groups in it."""
    group = above.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(above):
        command = group.commands[name]
        context = click.Context(command, parent=above, info_name=name)
        if isinstance(command, click.Group):
            yield from _walk(context)
        elif not command.hidden:
            yield context


def _options(context: click.Context) -> list[tuple[str, str]]:
    """Return a command's options as `--help` shows them: how they are written, and their meaning."""
    options = (parameter for parameter in context.command.params if isinstance(parameter, click.Option))
    return [record for record in (option.get_help_record(context) for option in options) if record is not None]


def _help(context: click.Context) -> tuple[str, str]:
    """Return the same for the option `--help`."""
    option = context.command.get_help_option(context)
    assert option is not None
    record = option.get_help_record(context)
    assert record is not None
    return record


def _common(commands: Iterable[click.Context]) -> list[tuple[str, str]]:
    counts = Counter(record for context in commands for record in _options(context))
    return [record for record, count in counts.items() if count >= _COMMON]


def _command(context: click.Context, common: list[tuple[str, str]]) -> Iterator[str]:
    options = _options(context)
    yield f".SS {_usage(context)}"
    yield from _text(context.command.help or "")
    yield from _items((_declared(names), meaning) for names, meaning in options if (names, meaning) not in common)
    shared = [_bold(names.split(" ")[0]) for names, meaning in options if (names, meaning) in common]
    if shared:
        yield from (".PP", f"Common options: {', '.join(shared)}.")


def _usage(context: click.Context) -> str:
    return f"{_bold(context.command_path)} {_roff(' '.join(context.command.collect_usage_pieces(context)))}"


def _settings() -> Iterator[str]:
    yield from _text(
        "A flag overrides the environment, which overrides the credentials of systemd, which override the file of "
        "settings in TOML, which overrides the default. A running daemon that is not on a terminal reloads its settings on SIGHUP; those marked "
        "(restart) apply at the next start."
    )
    for name, setting in SETTINGS.items():
        about, default = setting.metadata, setting.default
        shown = (
            "none" if default in (None, ()) else f"{default:g}" if isinstance(default, float) else str(default).lower()
        )
        meaning = f"{about['meaning']}.{'' if about['is_live'] else ' (restart)'}  [default: {shown}]"
        yield from _items([(f"{_bold(name)}, {_bold('BLOCKSD_' + name.upper())}", _capitalized(meaning))])
    for table, keys in TABLES.items():
        yield ".PP"
        yield from _text(f"`{table}` has a table `[{table}.NAME]` for each, with the keys:")
        yield from _items((_bold(name), f"{_capitalized(key.metadata['meaning'])}.") for name, key in keys.items())


def _text(text: str) -> Iterator[str]:
    """Format paragraphs of click's help: one that begins with a backspace keeps its lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", cleandoc(text))):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".EX", *map(_roff, paragraph.splitlines()[1:]), ".EE")
        else:
            yield from _lines(paragraph)


def _items(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Format a list of terms, which are roff already, with a text each."""
    for term, text in items:
        yield from (".TP", term, *_lines(text))


def _lines(text: str) -> list[str]:
    return [_roff(line) for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _declared(option: str) -> str:
    """Format an option: literal text in bold, placeholders in italics."""
    return " ".join(
        _bold(word) if word.startswith("-") else word if word == "/" else _italic(word) for word in option.split(" ")
    )


def _bold(text: str) -> str:
    return f"\\fB{_roff(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_roff(text)}\\fR"


def _roff(text: str) -> str:
    """Escape one line of text for roff; text in backticks becomes bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub("`([^`]*)`", r"\\fB\1\\fR", text)
    text = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]


if __name__ == "__main__":
    click.echo(page(), nl=False)
