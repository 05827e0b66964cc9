"""Text of others, made safe for a terminal, a log and a page."""

from __future__ import annotations

import unicodedata

# Control and format characters, halves of pairs, separators of lines and paragraphs: they move the
# cursor, hide or turn what stands beside them, or cannot be written at all.
UNSAFE = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])


def printable(text: str, keep: str = "") -> str:
    r"""Write the characters of a text that do not show as Python would: ESC becomes `\x1b`.

    Parameters
    ----------
    keep : str
        Characters that stay, such as the end of a line.

    Examples
    --------
    >>> printable("red \x1b[31m")
    'red \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _is_unsafe(c) else _escaped(c) for c in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in UNSAFE


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
