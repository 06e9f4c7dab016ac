"""The man page, made of what `--help` says and of the settings: `python -m blocksd.cli.manual > daemon/man/blocksd.1`."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from importlib.metadata import version
from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from blocksd.cli.main import cli
from blocksd.settings.config import CREDENTIAL, SETTINGS, SOURCE_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WIDTH = 100  # of the source, not of what is shown
_COMMON = 5  # an option that so many commands have is described once, for all of them

_ENVIRONMENT = (
    ("BLOCKSD_CONFIG", "The file of settings, instead of those under FILES."),
    (
        "STATE_DIRECTORY, XDG_STATE_HOME",
        "Where the state directory is, unless `state_dir` says so. systemd sets the first.",
    ),
    ("CREDENTIALS_DIRECTORY", f"Where systemd puts credentials: `{CREDENTIAL}` is the URL of the Redis server."),
    ("XDG_CONFIG_HOME", "What stands for ~/.config under FILES."),
    ("VISUAL, EDITOR", "What a value is written in, where none is given on a terminal."),
    ("NOTIFY_SOCKET", "Where `blocksd run` tells systemd that it is ready, and that it lives."),
)
_FILES = (
    ("blocksd.toml, ~/.config/blocksd/blocksd.toml, /etc/blocksd/blocksd.toml", "Settings; the first that is there."),
    (
        "~/.local/state/blocksd/NAMESPACE",
        "The state directory: `journal.db`; of a server of the daemon's own, `redis` and, with its password, `redis-url`.",
    ),
)


def page() -> str:
    """The man page blocksd(1), in the macros of man(7) and in ASCII."""
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
    """The commands of a group, and those of the groups in it."""
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
    """What `--help` says of a command's own options: how they are written, and what they mean."""
    options = (parameter for parameter in context.command.params if isinstance(parameter, click.Option))
    return [record for record in (option.get_help_record(context) for option in options) if record is not None]


def _help(context: click.Context) -> tuple[str, str]:
    """What every command has besides."""
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
        "A flag goes before the environment, the environment before the credentials of systemd, those before the file "
        "of settings, which is TOML, and that before the default. A daemon that runs reads its settings again on "
        "SIGHUP; those marked (restart) follow at the next start."
    )
    for name, setting in SETTINGS.items():
        about, default = setting.metadata, setting.default
        shown = (
            "none" if default in (None, ()) else f"{default:g}" if isinstance(default, float) else str(default).lower()
        )
        meaning = f"{about['meaning']}.{'' if about['is_live'] else ' (restart)'}  [default: {shown}]"
        yield from _items([(f"{_bold(name)}, {_bold('BLOCKSD_' + name.upper())}", _capitalized(meaning))])
    yield ".PP"
    yield from _text("Each source is a table of its own, `[sources.NAME]`, with the keys:")
    yield from _items((_bold(name), f"{_capitalized(key.metadata['meaning'])}.") for name, key in SOURCE_KEYS.items())


def _text(text: str) -> Iterator[str]:
    """Paragraphs as click's help has them: one that begins with a backspace keeps its lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", cleandoc(text))):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".EX", *map(_roff, paragraph.splitlines()[1:]), ".EE")
        else:
            yield from _lines(paragraph)


def _items(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A list of terms, which are roff already, and what is said of each."""
    for term, text in items:
        yield from (".TP", term, *_lines(text))


def _lines(text: str) -> list[str]:
    return [_roff(line) for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _declared(option: str) -> str:
    """An option as it is written: what is typed as it stands in bold, what it stands for in italics."""
    return " ".join(
        _bold(word) if word.startswith("-") else word if word == "/" else _italic(word) for word in option.split(" ")
    )


def _bold(text: str) -> str:
    return f"\\fB{_roff(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_roff(text)}\\fR"


def _roff(text: str) -> str:
    """One line of text, so that nothing in it is taken for a request; what is in backticks is bold."""
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
