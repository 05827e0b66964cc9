"""Names and words of others reach no terminal, log, page or file name as commands."""

import subprocess
import sys

import numpy as np
import pytest

from luneta.config.fields import Name, Section
from luneta.printable import printable
from luneta.reporting import tables
from luneta.reporting.reckoning import Group, Reckoning
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.ingest import mark_ids
from luneta.survey.patterns import named_by_file
from luneta.survey.shards import in_shards
from luneta.survey.tables import TableError
from luneta.survey.tiles import TileTableError, check_name, read_tiles

ODD = {
    "escape": "\x1b[2J",
    "bell": "a\x07",
    "newline": "a\nINFO: all is well",
    "return": "a\rb",
    "C1": "\x9b31m",
    "delete": "a\x7f",
    "turned": "a\u202eb",
    "isolate": "a\u2066b",
    "line separator": "a\u2028b",
    "hidden": "a\u200bb",
    "mark": "a\ufeffb",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_what_does_not_show_is_written_as_python_would(text):
    assert printable(text).isprintable()
    assert printable(text) == text.encode("unicode_escape").decode() or not text.isascii()
    assert printable("é 星 Ω \u00a0") == "é 星 Ω \u00a0"
    assert printable("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_an_object_id_that_does_not_show_is_refused(text):
    ids = np.array(["good", text, ""], object)
    flags = np.zeros(3, np.int32)
    reasons = np.full(3, None, object)
    assert mark_ids(ids, flags, reasons).tolist() == [True, False, False]
    assert flags.tolist() == [0, Flag.BAD_ID, Flag.BAD_ID]
    assert "holds characters that do not show" in reasons[1]
    assert reasons[1].isprintable()
    assert reasons[2] == "the row of the source list has no object_id"


def test_an_object_id_as_long_as_a_book_is_refused():
    ids = np.array(["a" * 10_000, "a" * 10_001, "a" * 10**7], object)
    flags = np.zeros(3, np.int32)
    reasons = np.full(3, None, object)
    mark_ids(ids, flags, reasons)
    assert flags.tolist() == [0, Flag.BAD_ID, Flag.BAD_ID]
    assert all(len(reason) < 200 for reason in reasons[1:])


@pytest.mark.parametrize("kind", [lambda text: ImageError(Flag.NO_DATA, text), TableError,
                                  TileTableError])  # fmt: skip
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_no_reason_holds_what_does_not_show(kind, text):
    assert str(kind(f"header value {text}")).isprintable()


@pytest.mark.parametrize("name", ["a;b", "a b", "a/b", "../a", ".a", "a{b}", "a\x1b", "a\u202eb",
                                  "a\n", "", "a*", "a" * 101, "é" * 51])  # fmt: skip
def test_tiles_are_called_by_what_names_a_file_everywhere(tmp_path, name):
    with pytest.raises(TileTableError, match="cannot name a file|100 are the most") as caught:
        check_name(name, "tile", "tiles.tsv")
    assert str(caught.value).isprintable()


def test_a_name_of_the_longest_kind_is_a_name_of_files(tmp_path):
    name = check_name("é" * 50, "tile", "tiles.tsv")
    longest = f".1234567@{'h' * 64}@{name}_{'b' * 32}_files.json.damaged"
    (tmp_path / longest).touch()


def test_a_comma_in_the_name_of_a_tile_is_not_in_that_of_its_shard(tmp_path):
    """HSC's tiles have one; on a cluster Snakemake separates the wildcards of a job by commas."""
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n9813-4,4\tr\ta.fits\nb\tr\tb.fits\n")
    tiles = in_shards(read_tiles(tmp_path / "tiles.tsv"), 1, tmp_path / "shards.tsv")
    assert {tile.name: tile.shard for tile in tiles.values()} == {"9813-4,4": "9813-4_4", "b": "b"}


def test_a_comma_in_the_name_of_a_shard_is_refused_at_its_line(tmp_path):
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\tshard\nb\tr\tb.fits\tb,c\n")
    with pytest.raises(TileTableError, match=r"tiles.tsv, line 2: shard 'b,c' cannot name a file"):
        read_tiles(tmp_path / "tiles.tsv")


def test_a_tile_named_by_its_file_has_no_comma():
    assert named_by_file("data/a,b c\x1b.fits") == "a_b_c"


@pytest.mark.parametrize(
    ("value", "is_good"), [("a" * 64, True), ("a" * 65, False), ("a" * 300, False)]
)
def test_names_of_the_config_fit_into_file_names(value, is_good):
    class Named(Section):
        name: Name

    if is_good:
        assert Named(name=value).name == value
    else:
        with pytest.raises(ValueError, match="64 are the most"):
            Named(name=value)


@pytest.mark.parametrize(("seed", "is_good"), [(2**32 - 1, True), (2**32, False), (-1, False)])
def test_seeds_are_those_that_keras_takes(seed, is_good):
    from luneta.config.model import Config

    field = Config.model_fields["seed"]
    from typing import Annotated

    from pydantic import TypeAdapter

    adapter = TypeAdapter(Annotated[int, *field.metadata])
    if is_good:
        assert adapter.validate_python(seed) == seed
    else:
        with pytest.raises(ValueError, match="Input should be"):
            adapter.validate_python(seed)


HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"


def test_a_page_of_rejects_shows_names_and_runs_none(tmp_path):
    row = dict.fromkeys(("name", "tile", "band", "reason"), HOSTILE)
    groups = {HOSTILE: Group(1, [row])}
    found = Reckoning(objects=groups, files=groups, rejected=1)
    tables.write_rejects(tmp_path / "r.html", found)
    text = (tmp_path / "r.html").read_text()
    assert "<script>" not in text
    assert printable(text, keep="\n") == text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
    assert "\\x1b[31m\\u202e" in text


def test_a_page_escapes_whatever_it_is_given(tmp_path):
    template = '<p title="{{ word }}">{{ word }}</p>{% for w in words %}{{ w }}{% endfor %}'
    tables.write_page(tmp_path / "p.html", template, word=HOSTILE, words=[HOSTILE])
    text = (tmp_path / "p.html").read_text()
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;\\x1b[31m\\u202e"
    assert text == f'<p title="{escaped}">{escaped}</p>{escaped}'


def test_no_log_holds_what_moves_the_cursor(tmp_path):
    program = (
        "import logging, sys\n"
        "from luneta.files import log_to\n"
        "log_to(sys.argv[1])\n"
        "logging.getLogger('luneta').warning('file %s', 'a\\x1b[2J\\u202eb')\n"
        "raise ValueError('\\x1b]0;title\\x07')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    written = (tmp_path / "log").read_text()
    for text in (written, ran.stderr):
        assert printable(text, keep="\n") == text
        assert "file a\\x1b[2J\\u202eb" in text
        assert "\\x1b]0;title\\x07" in text
