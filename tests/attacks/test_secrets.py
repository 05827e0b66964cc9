"""Passwords, signatures and tokens reach the server, and nothing that a run leaves or says."""

import json
import logging
import pickle
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from luneta.config import ConfigError, validate
from luneta.files import log_to
from luneta.plan import make_plan
from luneta.plan.records import CannotReproduce, check_secrets
from luneta.plan.relay import tell_jobs, told
from luneta.runs import RUN
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.remote import local_copy
from luneta.survey.remote_checks import url_problems, url_remarks
from luneta.urls import (
    HIDDEN,
    MissingVariable,
    concealed,
    has_secrets,
    hidden_options,
    recorded_config,
    redacted,
    resolved,
    revealed,
    secrets_of,
    shown_url,
    steady_url,
    url_key,
)
from tiny_survey import PlainSurvey, plain_config, sources_of
from web_server import redirect, refuse

PASSWORD, SIGNATURE, TOKEN = "Passw0rdOfMine", "5ignatureOfMine", "T0kenOfMine"
SECRETS = (PASSWORD, SIGNATURE, TOKEN)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host.org/a.fits", "https://host.org/a.fits"),
        ("https://me:word@host.org/a.fits", "https://host.org/a.fits"),
        ("https://word@host.org/a.fits", "https://host.org/a.fits"),
        ("https://me:w@rd@host.org/a.fits", "https://host.org/a.fits"),
        ("https://me:w/rd@host.org/a.fits", "https://host.org/a.fits"),
        ("https://me:w?rd@host.org/a.fits", "https://host.org/a.fits"),
        ("https://me:w#rd@host.org/a.fits", "https://host.org/a.fits"),
        ("https://me:wo", "https://***"),
        ("https://host.org/a.fits?sig=word[SCI]", "https://host.org/a.fits[SCI]"),
        ("https://host.org/a.fits#word", "https://host.org/a.fits"),
        ("https://host.org?word", "https://host.org"),
        ("https://host.org/a.fits;token=word", "https://host.org/a.fits"),
        ("https://host.org/a;jsessionid=word/b.fits;v=1?q", "https://host.org/a/b.fits"),
        ("https://host.org/a.fits;token=word[SCI]", "https://host.org/a.fits[SCI]"),
        ("https:/host.org/a.fits;token=word", "https:/host.org/a.fits"),
        ("https://host.org/a;b.fits", "https://host.org/a;b.fits"),
        ("https://me:wo rd@host.org/a.fits", "https://host.org/a.fits"),
        ("https://host.org:8080/a@b.fits", "https://host.org:8080/a@b.fits"),
        ("https://me:word@[::1]:80/a", "https://[::1]:80/a"),
        ("https://proxy.org/https://me:word@h.org/a?word", "https://proxy.org/https://h.org/a"),
        ("https://proxy.org/https:/me:word@h.org/a", "https://proxy.org/https:/h.org/a"),
        ("https://proxy.org/?url=https://me:word@h.org/a", "https://proxy.org/"),
        ("ftp://http://me:word@h.org/a", "ftp://http://h.org/a"),
        ("HTTPS://me:word@host.org/a", "HTTPS://host.org/a"),
        ("s3://bucket/a.fits?versionId=word", "s3://bucket/a.fits"),
        ("folder/a.fits?word", "folder/a.fits?word"),
        ("https:/me:word@h.org/a?word[SCI]", "https:/h.org/a[SCI]"),
        ("root/ https:/me:word@h.org/a?word", "root/ https:/h.org/a"),
        (" https://me:word@h.org/a?word", " https://h.org/a"),
        ("root/https:/word@h.org/a", "root/https:/h.org/a"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert shown_url(url) == shown
    assert shown_url(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a https://m:word@h.org/a?sig=word: no", "a https://h.org/a: no"),
        ("(https://h.org/a?sig=word)", "(https://h.org/a)"),
        ("url='https://m:word@h.org/a?b=word', x", "url='https://h.org/a', x"),
        ('{"a": "https://m:word@h.org/a?b=word"}', '{"a": "https://h.org/a"}'),
        ("<https://m:word@h.org/?word>", "<https://h.org/>"),
        ("https://h.org/a?word[SCI]: short", "https://h.org/a[SCI]: short"),
        ("simplecache::https://m:word@h.org/a", "simplecache::https://h.org/a"),
        ("zip://a::https://m:word@h.org/a?word", "zip://***https://h.org/a"),
        ("https://m:wo rd@h.org/a", "https://h.org/a"),
        ("two https://h/a?word, https://h/b?word.", "two https://h/a, https://h/b."),
        ("50% of a?b is 3://4", "50% of a?b is 3://4"),
    ],
)
def test_every_url_in_a_text_is_shown_so(text, shown):
    assert redacted(text) == shown


def test_a_known_secret_is_left_out_wherever_it_stands():
    assert redacted("GET /a?sig=secret%2F1 and secret/1", ["secret%2F1", "secret/1", "a"]) == (
        "GET /a?sig=*** and ***"
    )


def test_settings_show_and_store_no_secret_and_reach_the_job_whole():
    url = f"https://me:{PASSWORD}@host.org/a.fits?X-Amz-Signature={SIGNATURE}[SCI]"
    options = hidden_options({"headers": {"X-Key": TOKEN}, "key": TOKEN, "anon": True})
    settings = concealed({"tiles": [{"image": url}], "local": "a.fits"})
    settings["remote"] = {"options": options}
    assert not any(secret in repr(settings) for secret in SECRETS)
    assert not any(secret in json.dumps(settings, default=str) for secret in SECRETS)
    assert not any(secret in f"{settings['tiles'][0]['image']}" for secret in SECRETS)
    with pytest.raises(TypeError):
        json.dumps(settings)
    assert repr(pickle.loads(pickle.dumps(settings))) == repr(settings)
    there = revealed(pickle.loads(pickle.dumps(settings)))
    assert there["tiles"][0]["image"] == url
    assert there["remote"]["options"]["headers"]["X-Key"] == TOKEN


def read(url, settings):
    with local_copy(url, settings) as path:
        return Path(path).read_bytes()


def test_a_file_that_is_signed_anew_is_the_same_file_and_another_query_another():
    def signed(word, query=""):
        return (
            f"https://me:{word}@h.org/a.fits?id=1{query}&X-Amz-Signature={word}&X-Amz-Date={word}"
        )

    assert url_key(signed("one")) == url_key(signed("two"))
    assert url_key(signed("one")) != url_key(signed("one", "2"))
    assert steady_url(signed("one")) == "https://h.org/a.fits?id=1"


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({"anon": True}, {"anon": True}),
        ({"key": "AKIA", "secret": "word"}, {"key": HIDDEN, "secret": HIDDEN}),
        ({"headers": {"Authorization": "a"}}, {"headers": {"Authorization": HIDDEN}}),
        ({"headers": {"X-Anything": "a"}}, {"headers": {"X-Anything": HIDDEN}}),
        ({"headers": {"User-Agent": "luneta"}}, {"headers": {"User-Agent": "luneta"}}),
        ({"password": 12345}, {"password": HIDDEN}),
        ({"auth": ["me", "word"]}, {"auth": [HIDDEN, HIDDEN]}),
        ({"secret": {"env": "NAME"}}, {"secret": {"env": "NAME"}}),
        (
            {"client_kwargs": {"endpoint_url": "https://me:word@s3.org/?a=word"}},
            {"client_kwargs": {"endpoint_url": "https://s3.org/"}},
        ),
        ({"default_block_size": 5, "use_ssl": False}, {"default_block_size": 5, "use_ssl": False}),
    ],
)
def test_options_are_recorded_without_what_may_be_secret(options, recorded):
    config = {"input": {"remote": {"options": options}, "sources": f"https://h/a?sig={SIGNATURE}"}}
    assert recorded_config(config)["input"] == {
        "remote": {"options": recorded},
        "sources": "https://h/a",
    }


def test_options_may_name_environment_variables(monkeypatch):
    options = {"headers": {"Authorization": {"env": "LUNETA_TOKEN"}}, "list": [{"env": "HOME"}]}
    monkeypatch.setenv("LUNETA_TOKEN", TOKEN)
    assert resolved(options)["headers"] == {"Authorization": TOKEN}
    monkeypatch.delenv("LUNETA_TOKEN")
    with pytest.raises(MissingVariable, match="environment variable LUNETA_TOKEN is not set"):
        resolved(options)


STAMPS = {"kind": "stamps", "table": "a.csv", "image": "{name}", "bands": ["g"]}


def given(**remote):
    config = validate({"survey": "a", "input": {**STAMPS, "remote": remote}})
    return config.input.model_dump(mode="json")


def test_a_variable_that_is_not_set_is_refused_at_planning_by_its_name(monkeypatch):
    monkeypatch.delenv("LUNETA_TOKEN", raising=False)
    settings = given(options={"headers": {"Authorization": {"env": "LUNETA_TOKEN"}}})
    assert list(url_problems(settings)) == [
        "input.remote.options: {env: LUNETA_TOKEN}: the environment variable LUNETA_TOKEN is not "
        "set; set it before the run (export LUNETA_TOKEN=...)"
    ]
    monkeypatch.setenv("LUNETA_TOKEN", TOKEN)
    assert list(url_problems(settings)) == []


def test_a_literal_secret_is_remarked_with_the_way_out():
    notes = list(url_remarks(given(options={"secret": TOKEN}, hosts=["h.org"])))
    assert len(notes) == 1
    assert notes[0].startswith("input.remote.options.secret: a secret in the config can be read by")
    assert "options.secret: {env: SECRET}" in notes[0]
    assert TOKEN not in notes[0]
    assert list(url_remarks(given(options={"anon": True, "secret": {"env": "A"}}))) == []


def test_headers_that_go_to_any_host_are_remarked():
    headers = {"headers": {"Authorization": {"env": "A"}}}
    assert "list those that they are meant for" in next(url_remarks(given(options=headers)))
    assert list(url_remarks(given(options=headers, hosts=["h.org"]))) == []


def test_errors_and_logs_of_a_transfer_show_no_secret(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("LUNETA_TOKEN", TOKEN)
    server.answers["/b"] = refuse(503)
    server.answers["/c"] = lambda handler: handler.send_error(503, f"{TOKEN} for {SIGNATURE}?")
    server.answers["/d"] = refuse(403)
    options = {"headers": {"X-Token": {"env": "LUNETA_TOKEN"}}}
    settings = {"retries": 1, "wait": 0.0, "timeout": 5.0, "options": options}
    host = server.url.replace("//", f"//me:{PASSWORD}@")
    nobody = f"http://me:{PASSWORD}@127.0.0.1:9"
    told = ""
    for name in (
        f"{host}/a",
        f"{host}/b",
        f"{host}/c",
        f"{host}/d",
        f"{nobody}/e",
        f"ftp://{host}",
    ):
        with pytest.raises(ImageError) as raised:
            read(f"{name}?sig={SIGNATURE}", settings)
        told += f"{raised.value} {raised.value.path} "
    told += caplog.text
    assert f"{server.url}/b could not be fetched in 2 tries" in told
    assert not any(secret in told for secret in SECRETS)
    assert server.requests[0].headers["X-Token"] == TOKEN
    assert server.requests[0].headers["Authorization"] == "Basic bWU6UGFzc3cwcmRPZk1pbmU="
    assert server.requests[0].path == f"/a?sig={SIGNATURE}"


def test_a_server_that_refuses_a_token_is_asked_again_once_the_token_may_be_renewed(server):
    server.answers["/a"] = refuse(403)
    settings = {"retries": 0, "wait": 0.0, "timeout": 5.0, "options": {}}
    for url, flag in (("/a", Flag.UNREADABLE_FILE), (f"/a?sig={SIGNATURE}", Flag.UNAVAILABLE)):
        with pytest.raises(ImageError, match="answered 403") as raised:
            read(server.url + url, settings)
        assert raised.value.flag == flag


def test_a_log_shows_no_secret_of_a_url_in_any_library_s_words(tmp_path):
    url = f"https://me:{PASSWORD}@host.org/a?sig={SIGNATURE}"
    root = logging.getLogger()
    handlers, hook = root.handlers[:], sys.excepthook
    try:
        log_to(tmp_path / "log")
        logging.getLogger("library").warning("GET %s", url)
        try:
            raise OSError(f"cannot connect to {url}")
        except OSError as error:
            sys.excepthook(OSError, error, error.__traceback__)
    finally:
        root.handlers[:], sys.excepthook = handlers, hook
    text = (tmp_path / "log").read_text()
    assert text.count("https://host.org/a") == 3
    assert not any(secret in text for secret in SECRETS)


def everything(folder: Path):
    """Every file below a folder: its bytes, and the values of what is compressed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes() + _values(path)


def _values(path: Path) -> bytes:
    if path.suffix == ".parquet":
        table, more = pq.read_table(path), pq.read_metadata(path).metadata
        return f"{table.to_pydict()} {more} {table.schema}".encode()
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        texts = [name for name in table.column_names if name not in ("image", "content")]
        return f"{table.select(texts).to_pydict()} {table.schema}".encode()
    return b""


@pytest.mark.slow
def test_a_run_leaves_no_secret_anywhere(server, tmp_path):
    """Two tiles by URL, one of them never there, with a password, signatures and a token."""
    survey = PlainSurvey(tmp_path / "survey")
    host = server.url.replace("//", f"//me:{PASSWORD}@")
    lines = ["tile\tband\timage"]
    for tile in (0, 1):
        survey.write_tile(tile)
        for band in "gr":
            path = survey.folder / f"tiles/t{tile}_{band}.fits"
            server.answers[f"/{path.name}"] = path.read_bytes()
            url = f"{host}/{path.name}?X-Amz-Signature={SIGNATURE}[IMAGE]"
            lines.append(f"t{tile}\t{band}\t{url}")
            path.unlink()
    server.answers["/t1_g.fits"] = refuse(503)
    server.answers["/list.csv"] = b"object_id,ra,dec\n" + b"".join(
        b"s%d,%f,0.0\n" % (n, 150 + n * 0.012) for n in (0, 1)
    )
    (survey.folder / "tiles.tsv").write_text("\n".join(lines) + "\n")
    config = plain_config()
    config["input"] |= {
        "images": None, "masks": None, "tiles": "tiles.tsv",
        "sources": f"{host}/list.csv?sig={SIGNATURE}",
        "remote": {"retries": 0, "wait": 0.0, "options": {"headers": {"X-Token": TOKEN}}},
    }  # fmt: skip
    survey.write_config(config)
    done = survey.snakemake("--printshellcmds", "--verbose", "--benchmark-extended")
    assert done.returncode == 0, done.stderr[-3000:]
    config["cutouts"]["size"] = 14
    survey.write_config(config)
    dry = survey.snakemake("--dry-run", "--printshellcmds")
    page = survey.snakemake("--report", "page.html")
    assert page.returncode == 0, page.stderr[-3000:]
    said = "".join(run.stdout + run.stderr for run in (done, dry, page))
    assert "a secret in the config can be read by everybody" in said
    record = next((survey.results / "runs").glob("*.json"))
    assert sorted(json.loads(record.read_text())["not_recorded"]) == [
        "input.remote.options.headers.X-Token", "input.sources",
    ]  # fmt: skip
    texts = {
        "printed": said.encode(),
        "page": (survey.folder / "page.html").read_bytes(),
    }
    places = (survey.results, survey.folder / ".snakemake")
    texts |= {str(path): content for place in places for path, content in everything(place)}
    leaks = [(name, s) for name, text in texts.items() for s in SECRETS if s.encode() in text]
    assert leaks == []
    assert any(SIGNATURE in request.path for request in server.requests)
    assert any(TOKEN in request.headers.values() for request in server.requests)


def test_a_parameter_of_the_path_tells_files_apart_and_a_session_does_not():
    one, other = (f"https://h.org/a.fits;v={n};jsessionid={SIGNATURE}{n}" for n in "12")
    again = f"https://h.org/a.fits;v=1;jsessionid={SIGNATURE}3"
    assert url_key(one) == url_key(again) != url_key(other)
    assert SIGNATURE not in url_key(one)
    assert has_secrets(one)
    assert f"{SIGNATURE}1" in secrets_of(one)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no https://me:wo rd@h.org/a.fits today", "no https://h.org/a.fits today"),
        ("no https://me:w o r d@h.org/a today", "no https://h.org/a today"),
        ("no https:/me:wo rd@h.org/a today", "no https:/h.org/a today"),
        ("see https://h.org:8080 or me@x.org", "see https://h.org:8080 or me@x.org"),
        ("see https://h.org: ask me@x.org", "see https://h.org: ask me@x.org"),
        ("https://h.org/a: mail me@x.org", "https://h.org/a: mail me@x.org"),
    ],
)
def test_a_password_with_a_blank_is_left_out_of_a_text(text, shown):
    assert redacted(text) == shown


REPORTER = """
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_report_plugins.reporter import ReporterBase
from snakemake_interface_report_plugins.settings import ReportSettingsBase


@dataclass
class ReportSettings(ReportSettingsBase):
    pass


class Reporter(ReporterBase):
    def render(self):
        text = "".join(Path(file.path).read_text() for file in self.configfiles)
        Path("page.html").write_text(text)
"""
REPORTS = [
    ["--report=page.html"],
    ["--reporter", "offiles"],
    ["--reporter=offiles"],
    ["--profile", "of_report"],
]


@pytest.fixture(scope="module")
def survey_with_secrets(tmp_path_factory):
    """A survey of which one shard is ingested, with two config files that hold secrets."""
    survey = PlainSurvey(tmp_path_factory.mktemp("survey"))
    survey.write_tile(0)
    survey.write_sources(sources_of(0))
    config = plain_config()
    config["input"]["remote"] = {"options": {"headers": {"X-Token": TOKEN}}}
    survey.write_config(config)
    name = f"https://me:{PASSWORD}@h.org/a.fits?sig={SIGNATURE}"
    (survey.folder / "more").mkdir()
    (survey.folder / "more/config.yaml").write_text(f"survey: {config['survey']}  # of {name}\n")
    plugin = survey.folder / "scripts/snakemake_report_plugin_offiles/__init__.py"
    plugin.parent.mkdir()
    plugin.write_text(REPORTER)
    (survey.folder / "of_report").mkdir()
    (survey.folder / "of_report/config.yaml").write_text("reporter: offiles\n")
    done = survey.snakemake("--configfile", "config.yaml", "more/config.yaml", "--until", "ingest")
    assert done.returncode == 0, done.stderr[-3000:]
    return survey


@pytest.mark.parametrize("options", REPORTS, ids=" ".join)
def test_no_report_shows_a_secret_however_it_is_asked_for(survey_with_secrets, options):
    survey = survey_with_secrets
    page = survey.folder / "page.html"
    page.unlink(missing_ok=True)
    configs = ["--configfile", "config.yaml", "more/config.yaml"]
    done = survey.snakemake(*configs, *options, "--", "results/tiny/objects/t0.parquet")
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text()
    assert [secret for secret in SECRETS if secret in text] == []
    if options != ["--report=page.html"]:  # Snakemake's own page holds no config any more
        assert "X-Token" in text
        assert "https://h.org/a.fits" in text


def test_what_keeps_whole_urls_for_the_jobs_can_be_read_by_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("object_id,url\na,https://h.org/a.fits\n")
    (tmp_path / "signed.csv").write_text(f"object_id,url\na,https://h.org/a.fits?sig={SIGNATURE}\n")
    modes = {}
    for name in ("list", "signed"):
        columns = {"object_id": "object_id", "ra": None, "dec": None}
        given = {"kind": "stamps", "table": f"{name}.csv", "image": "{url}", "bands": ["g"]}
        plan = make_plan({"survey": name, "input": given | {"columns": columns}})
        (path,) = plan.slices.values()
        modes[name] = path.stat().st_mode & 0o077
    assert modes["signed"] == 0
    assert modes["list"] != 0
    assert SIGNATURE in str(pq.read_table(path).to_pydict())


def test_what_is_told_to_jobs_of_a_cluster_can_be_read_by_the_owner_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUN, "token lock")
    (tmp_path / "list.csv").write_text("object_id,ra,dec,tile\n1,150.0,2.0,a\n")
    line = f"a\tg\thttps://me:{PASSWORD}@h.org/a.fits\n"
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n" + line)
    given = {"kind": "tiles", "tiles": "tiles.tsv", "sources": "list.csv", "bands": ["g"]}
    given["columns"] = {"tile": "tile"}
    plan = make_plan({"survey": "a", "input": given})
    tell_jobs(plan)
    assert (plan.index / "plan.json").stat().st_mode & 0o077 == 0
    (there,) = told(plan.config).tiles.values()
    assert PASSWORD in there.bands["g"].image
    assert PASSWORD in revealed(plan.cutouts("a"))["tiles"][0]["bands"]["g"]["image"]
    assert PASSWORD not in repr(plan.cutouts("a"))
    assert PASSWORD not in repr(plan.ingest("a"))
    assert PASSWORD not in json.dumps(plan._state())


def test_a_redirect_that_is_refused_shows_no_secret_of_the_place(server):
    place = f"ftp://me:{PASSWORD}@h.org/a?sig={SIGNATURE}"
    server.answers["/a"] = redirect(place)
    with pytest.raises(ImageError, match="the server redirects to ftp://h.org/a") as raised:
        read(f"{server.url}/a", {"retries": 0, "wait": 0, "timeout": 5.0, "options": {}})
    assert not any(secret in str(raised.value) for secret in SECRETS)


def test_a_run_whose_secrets_are_not_recorded_cannot_be_reproduced_from_its_record():
    check_secrets([])
    with pytest.raises(CannotReproduce, match=r"held secrets that no record keeps, in input\.sou"):
        check_secrets(["input.sources"])


def test_a_token_that_is_renewed_runs_no_job_again():
    def settings(token, signature):
        config = {"remote": {"options": hidden_options({"headers": {"X-Token": token}})}}
        return repr(concealed(config | {"a": f"https://h.org/a?id=1&sig={signature}"}))

    assert settings("one", "two") == settings("three", "four")


def test_a_token_in_a_message_of_pydantic_is_not_shown():
    for options in (TOKEN, [TOKEN]):
        with pytest.raises(ConfigError) as raised:
            given(options=options)
        assert TOKEN not in str(raised.value)
