"""The header in YAML that astropy writes into ECSV, HDF5 and Parquet: what its columns are.

Only words are taken from it. Tags, which make objects, and aliases, which can stand for more than
any memory holds, are never followed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import yaml

from luneta.survey.bounds import TooLarge, shown

MOST_BYTES = 2**23
NULL = "tag:yaml.org,2002:null"


def read_header(lines: Sequence[str]) -> tuple[dict[str, dict[str, str]], str | None]:
    """Read the columns that a header describes.

    Parameters
    ----------
    lines : sequence of str
        Of YAML, without the marks of a comment.

    Returns
    -------
    columns : dict
        By name, in order: `name`, `datatype`, and maybe `unit`, `subtype` and others, all words.
    delimiter : str or None
        What stands between the fields of a row, if the header tells it.

    Raises
    ------
    ValueError
        If it is not YAML, or does not describe columns.
    TooLarge
        If it is longer than 8 MiB.
    """
    text = textwrap.dedent("\n".join(lines))
    if len(text) > MOST_BYTES:
        raise TooLarge(f"has a header of {shown(len(text))}; {shown(MOST_BYTES)} are the most")
    try:
        root = dict(_pairs(yaml.compose(text, Loader=yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise ValueError(f"its header is not YAML: {error}") from None
    except RecursionError:
        raise ValueError("its header has too many levels") from None
    listed = root.get("datatype")
    if not isinstance(listed, yaml.SequenceNode):
        raise ValueError("its header has no list of columns, which is called datatype")
    columns = [_words(node) for node in listed.value]
    if any("name" not in column or "datatype" not in column for column in columns):
        raise ValueError("its header describes a column without name or datatype")
    return {column["name"]: column for column in columns}, _word(root.get("delimiter"))


def read_units(lines: Sequence[str]) -> dict[str, str]:
    """Read the units of columns by name; empty where there is none.

    Raises
    ------
    ValueError, TooLarge
        As `read_header`.
    """
    columns, _ = read_header(lines)
    return {name: column.get("unit", "") for name, column in columns.items()}


def _pairs(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """Go through a map, or through a list of maps, which YAML calls omap."""
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value if _is_word(key))
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            if isinstance(part, yaml.MappingNode):
                yield from ((key.value, value) for key, value in part.value if _is_word(key))


def _is_word(node: yaml.Node | None) -> bool:
    return isinstance(node, yaml.ScalarNode)


def _word(node: yaml.Node | None) -> str | None:
    return node.value if _is_word(node) and node.tag != NULL else None


def _words(node: yaml.Node) -> dict[str, str]:
    """Return the entries of a map that are words; of a unit that is a map, its `unit`."""
    words = {}
    for key, value in _pairs(node):
        if key == "unit" and isinstance(value, yaml.MappingNode):
            value = dict(_pairs(value)).get("unit")
        word = _word(value)
        if word is not None:
            words[key] = word
    return words
