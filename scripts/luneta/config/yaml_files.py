"""Reading config files strictly: a YAML error is told in one line, a key given twice is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from luneta.config.fields import ConfigError

OPTION = re.compile(r"--configfiles?(=(?P<path>.*))?$")
UNQUOTED = re.compile(r"(:\s+|^\s*-\s+)(?P<text>([*&!%@`]|{.*}[^\s}\]]).*)$")
NO_BLANK = re.compile(r"^\s*(-\s+)?\w+:(?=[^\s:/])")
HINTS = {
    "expected ',' or": "the bracket opened in line {start} is not closed, or a comma is missing",
    "found unexpected end of stream": "the quote opened in line {start} is not closed",
    "mapping values are not allowed": "put text with a colon in quotes, and check that the line "
    "above is whole",
    "could not find expected ':'": "line {start} must be `key: value`, with a colon and a blank",
    "expected <block end>": "indent the line like those beside it, by blanks",
    "found another document": "remove the line `---`: a config is one document",
    "undefined alias": "put text that begins with * in quotes",
}


def read_config(path: Path | str) -> dict[str, Any]:
    """Read a config file, which must hold keys, each of them once.

    Parameters
    ----------
    path : path
        YAML, or JSON as Snakemake takes it too.

    Raises
    ------
    ConfigError
        In one line, with the line of the file and the fix: if it cannot be read, is not YAML, holds
        no keys, or holds a key twice.
    """
    text = _text(path)
    data = _from_json(path, text) if str(path).endswith(".json") else _from_yaml(path, text)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: {_no_keys(data)}; start from config/demo.yaml")
    return data


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not YAML: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None


def _no_keys(data: Any) -> str:
    empty = " (the file is empty)" if data is None else ""
    return f"config = {data!r:.60}: must hold keys, such as `survey: mine`{empty}"


def _from_yaml(path: Path | str, text: str) -> Any:
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_problem(path, text, error)) from None
    twice = _repeated_key(tree, set()) if tree is not None else None
    if twice is not None:
        key, first, again = twice
        raise ConfigError(
            f"{path}, line {again}: the key {key!r} stands in line {first} already, and only one "
            "of the two would count; remove one, or join them"
        )
    return data


def _repeated_key(node: yaml.Node, seen: set[int]) -> tuple[str, int, int] | None:
    """Find a key that its section holds twice: the key, and the lines of both."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return None
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return _first(_repeated_key(child, seen) for child in node.value)
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            return key.value, lines[name], line
        lines[name] = line
    return _first(_repeated_key(child, seen) for _, child in node.value)


def _first(found: Iterable[Any]) -> Any:
    return next((one for one in found if one is not None), None)


def _from_json(path: Path | str, text: str) -> Any:
    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"{path}: the key {twice!r} stands there twice, and only one of the two would "
                "count; remove one, or join them"
            )
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: is not JSON: {error.msg}; correct the line, or write "
            "YAML in a file named .yaml"
        ) from None


def _yaml_problem(path: Path | str, text: str, error: yaml.YAMLError) -> str:
    """Say in one line where a file is no YAML, and what to do."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a character that no text holds
        return f"{path}: is not YAML: {' '.join(str(error).split())}; remove that character"
    start = getattr(error, "context_mark", None) or mark
    problem = " ".join(str(error.problem or error.context).split())
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1)
    hint = _hint(lines, number, problem, start.line + 1)
    shown = f" ({lines[number].strip():.60})" if lines[number].strip() else ""
    return f"{path}, line {number + 1}: is not YAML: {problem}{shown}; {hint}"


def _hint(lines: Sequence[str], number: int, problem: str, start: int) -> str:
    """Say how to correct the line of a YAML error."""
    line = lines[number]
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        return "indent by blanks, not by a tab"
    for near in (number, max(number - 1, 0), start - 1):
        unquoted = UNQUOTED.search(lines[near].rstrip())
        if unquoted:
            return f'put text that begins so in quotes: "{unquoted["text"]}"'
        if NO_BLANK.match(lines[near]):
            return f"write a blank after the colon in line {near + 1}"
    hints = (hint for words, hint in HINTS.items() if words in problem)
    usual = "look there for a tab, a missing space after a colon, or a bracket left open"
    return next(hints, usual).format(start=start)


def named_files(arguments: Sequence[str]) -> list[str]:
    """List the config files that a command line of Snakemake names.

    Examples
    --------
    >>> named_files(["-n", "--configfile", "a.yaml", "b.yaml", "--cores", "2"])
    ['a.yaml', 'b.yaml']
    >>> named_files(["--configfiles=c.yaml"])
    ['c.yaml']
    """
    found: list[str] = []
    listing = False
    for word in arguments:
        option = OPTION.match(word)
        if option is not None:
            listing = option["path"] is None
            found = [] if listing else [option["path"]]
        elif word.startswith("-"):
            listing = False
        elif listing:
            found.append(word)
    return found


def check_command_line() -> None:
    """End the process with one line if a config file that the command line names is unusable.

    The profiles call it, as Snakemake reads config files before the Snakefile: it answers a file
    that does not exist with a traceback, and a YAML error without its line.
    """
    try:
        for path in named_files(sys.argv[1:]):
            read_config(path)
    except ConfigError as error:
        sys.exit(f"The config cannot work: {error}")
