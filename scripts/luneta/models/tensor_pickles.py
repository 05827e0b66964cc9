"""The few operations of a pickle that a file of tensors needs, and no others.

A pickle is a program for a machine with a stack. Python's own machine calls what the program names
and sets what it likes; this one makes dicts, lists, tuples, numbers and words, and calls the few
functions that it is given.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

MOST_BYTES = 2**26

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
WORDS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = ("BINPUT", "LONG_BINPUT")
GETS = ("BINGET", "LONG_BINGET")
NOTHING = ("PROTO", "FRAME")


class PickleError(ValueError):
    """A pickle that does what tensors have no need of."""


class _Mark:
    """Where on the stack the parts of a container begin."""


_MARK = _Mark()


class Machine:
    """Runs a pickle of tensors.

    Parameters
    ----------
    names : mapping
        By module and name, what the pickle may name: a callable, or a value.
    storage : callable
        Makes a storage of what the pickle tells of it.
    """

    def __init__(self, names: Mapping[tuple[str, str], Any], storage: Callable[[Any], Any]):
        self._names = names
        self._storage = storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Run a pickle, and give what it makes.

        Raises
        ------
        PickleError
            If it is too long, or has an operation that is not among the known ones.
        """
        if len(content) > MOST_BYTES:
            raise PickleError(f"its pickle has {len(content):,} bytes, {MOST_BYTES:,} are the most")
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                return self._pop()
            self._do(operation.name, argument)
        raise PickleError("its pickle has no end")

    def _do(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in NUMBERS or name in WORDS:
            self._stack.append(argument)
        elif name in TUPLES:
            self._push_tuple(self._pop_many(TUPLES[name]))
        elif name in PUTS:
            self._memo[argument] = self._top()
        elif name in GETS:
            self._stack.append(self._remembered(argument))
        elif name not in NOTHING:
            self._operation(name)(argument)

    def _operation(self, name: str) -> Callable[[Any], None]:
        known = {
            "MARK": lambda _: self._stack.append(_MARK),
            "TUPLE": lambda _: self._push_tuple(self._pop_to_mark()),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "MEMOIZE": lambda _: self._memo.__setitem__(len(self._memo), self._top()),
            "GLOBAL": lambda argument: self._push_name(*argument.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._push_name(*self._pop_many(2)),
            "BINPERSID": lambda _: self._stack.append(self._storage(self._pop())),
            "REDUCE": lambda _: self._call(*self._pop_many(2)),
            "BUILD": lambda _: self._ignore_attributes(self._pop()),
            "SETITEM": lambda _: self._set_items(self._pop_many(2)),
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "APPEND": lambda _: self._append(self._pop_many(1)),
            "APPENDS": lambda _: self._append(self._pop_to_mark()),
        }
        if name not in known:
            raise PickleError(
                f"it has the operation {name}, which a file of tensors has no need of"
            )
        return known[name]

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("its pickle takes from an empty stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_many(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_to_mark(self) -> list[Any]:
        parts = []
        while self._stack and self._stack[-1] is not _MARK:
            parts.append(self._stack.pop())
        if not self._stack:
            raise PickleError("its pickle takes from an empty stack")
        self._stack.pop()
        return parts[::-1]

    def _remembered(self, number: int) -> Any:
        if number not in self._memo:
            raise PickleError("its pickle asks for what was not made")
        return self._memo[number]

    def _push_tuple(self, parts: list[Any]) -> None:
        self._stack.append(tuple(parts))

    def _push_name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or (module, name) not in self._names:
            raise PickleError(
                f"it asks for {module!s:.80}.{name!s:.80}, which a file of tensors has no need of"
            )
        self._stack.append(self._names[module, name])

    def _call(self, function: Any, arguments: Any) -> None:
        if not callable(function) or type(arguments) is not tuple:
            raise PickleError("it calls what is no function")
        self._stack.append(function(*arguments))

    def _ignore_attributes(self, state: Any) -> None:
        """Drop the attributes of a state dict, which tell of versions; nothing else has any."""
        if type(self._top()) is not dict or type(state) is not dict:
            raise PickleError("it sets attributes of what is no state dict")

    def _set_items(self, parts: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(parts) % 2:
            raise PickleError("it sets items of what is no dict")
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            if type(key) not in (str, int):  # the hash of a nested tuple can take for ever
                raise PickleError("a key of a dict is neither a word nor a number")
            target[key] = value

    def _append(self, parts: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise PickleError("it appends to what is no list")
        target += parts
