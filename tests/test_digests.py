"""Sha256 of content and of files."""

import hashlib
from datetime import date

import pytest

from luneta.digests import digest, file_digest, files_digest


def test_content_has_one_digest_whatever_the_order_of_its_keys():
    expected = hashlib.sha256(b'{"a": 1, "b": [2, null]}').hexdigest()
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": (2, None), "a": 1}) == expected


def test_other_content_has_another_digest():
    assert len({digest([{"a": 1}, x]) for x in (0, 1, "1", None, 0.5)}) == 5


def test_content_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="date is not JSON serializable"):
        digest({"day": date(2026, 1, 1)})


def test_files_are_digested_in_the_order_given(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(path.name)
    assert file_digest(paths[0]) == hashlib.sha256(b"a").hexdigest()
    both = b"".join(hashlib.sha256(one).digest() for one in (b"a", b"b"))
    assert files_digest(paths) == hashlib.sha256(both).hexdigest()
    assert files_digest(paths[::-1]) != files_digest(paths)
