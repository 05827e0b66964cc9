"""`make reproduce` with a stranger's record: nothing of his is run, and nothing of ours is lost."""

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from luneta.catalog.provenance import environment_digest
from luneta.config import validate
from luneta.files import write_json
from luneta.plan import reproduce
from luneta.plan.records import CannotReproduce, read_record
from tiny_survey import plain_config

RUN_ID = "0123456789abcdef"
# Notes that it ran, and leaves the record that the new run is compared with
SNAKEFILE = """
import shutil
from pathlib import Path
Path("ran").touch()
Path("results/tiny/runs").mkdir(parents=True, exist_ok=True)
rule all:
    output: "results/tiny/runs/new.json"
    shell: "cp ../../../runs/*.json {output}"
"""
IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def git(folder, *arguments):
    command = ["git", "-C", folder, *IDENTITY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder, message="all"):
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)
    return git(folder, "rev-parse", "HEAD")


class Stranger:
    """A folder with the record of a run, and a repository whose workflow takes a second."""

    def __init__(self, folder: Path):
        self.folder = folder / "survey"
        self.repository = folder / "repository"
        self.victim = folder / "victim"
        (self.victim / "thesis").mkdir(parents=True)
        (self.victim / "thesis/chapter.tex").write_text("years of work")
        (self.repository / "workflow").mkdir(parents=True)
        (self.repository / "workflow/Snakefile").write_text(SNAKEFILE)
        git(folder, "init", "-q", self.repository)
        config = validate(plain_config()).model_dump(mode="json")
        facts = {
            "luneta.survey": "tiny",
            "luneta.run_id": RUN_ID,
            "luneta.git_commit": commit(self.repository),
            "luneta.git_dirty": "false",
            "luneta.config_sha256": "0" * 64,
            "luneta.environment_sha256": environment_digest(),
        }
        self.content = {
            "facts": facts,
            "config": config,
            "environment": {"lock": None, "packages": {}},
            "changes": None,
            "inputs": {"files": {}, "left_out": None},
            "outputs": {"catalog/a.parquet": "1" * 64},
        }
        self.record = self.folder / f"results/tiny/runs/{RUN_ID}.json"

    def with_input(self, name, content=b"his"):
        """Deliver a file with the record, and name it among the inputs."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.content["inputs"]["files"][name] = digest

    def with_diff(self, patch):
        """Deliver changes of the code."""
        self.content["facts"]["luneta.git_dirty"] = "true"
        digest = hashlib.sha256(patch).hexdigest()
        changes = {"sha256": digest, "bytes": len(patch), "file": f"{RUN_ID}.diff"}
        self.content["changes"] = changes
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.with_suffix(".diff").write_bytes(patch)

    def stop_before_run(self):
        """Ask for packages that are not here: all is laid out then, and nothing run."""
        self.content["facts"]["luneta.environment_sha256"] = "0" * 64

    def is_run(self):
        return bool(list(self.folder.rglob("ran")))

    def is_victim_whole(self):
        kept = (self.victim / "thesis/chapter.tex").read_text() == "years of work"
        return kept and names(self.victim) == ["thesis"]


@pytest.fixture
def stranger(tmp_path):
    return Stranger(tmp_path)


@pytest.fixture
def call(stranger, monkeypatch, capfd):
    """Call `make reproduce`'s program; give its status and what it says."""
    monkeypatch.setattr(reproduce, "REPOSITORY", stranger.repository)

    def call(*options, run=None, write=True):
        if write:
            write_json(stranger.record, stranger.content)
        monkeypatch.chdir(stranger.folder)
        words = ["reproduce", str(run or stranger.record), "--cores", "1", *options]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            reproduce.main()
        told = capfd.readouterr()
        return ended.value.code, told.out + told.err

    return call


def test_an_honest_record_is_run(stranger, call):
    stranger.with_input("tiles/a.fits")
    status, told = call()
    assert status == 0, told
    assert stranger.is_run()
    stranger.stop_before_run()
    assert refused(*call(), "its environment")  # over what is there
    assert list(stranger.folder.rglob("checkout/workflow/Snakefile"))
    assert not stranger.is_run()


def test_results_that_are_a_link_of_the_user_are_used(stranger, call, tmp_path):
    (tmp_path / "scratch").mkdir()
    stranger.folder.mkdir()
    (stranger.folder / "results").symlink_to(tmp_path / "scratch")
    stranger.stop_before_run()
    assert refused(*call(), "its environment")
    assert (tmp_path / "scratch/tiny/reproduced" / RUN_ID / "checkout/workflow").exists()


@pytest.mark.parametrize(
    "run_id",
    ["{victim}", "../../../../victim", "..", ".", "", "0123456789ABCDEF", "0123456789abcde",
     "0123456789abcdef\n", "0123456789abcdef/../../../../../victim", 5, None, ["a"], True],
)  # fmt: skip
def test_a_run_id_that_is_none_removes_nothing(stranger, call, run_id):
    if isinstance(run_id, str):
        run_id = run_id.replace("{victim}", str(stranger.victim))
    stranger.content["facts"]["luneta.run_id"] = run_id
    assert refused(*call(), "luneta.run_id")
    assert stranger.is_victim_whole() and not stranger.is_run()


@pytest.mark.parametrize(
    "survey", ["{victim}", "../../victim", "..", "", "a/b", "tiny\n", "tiny\x1b[2J", 3, None, {}]
)
def test_a_survey_that_is_no_name_removes_nothing(stranger, call, survey):
    if isinstance(survey, str):
        survey = survey.replace("{victim}", str(stranger.victim))
    stranger.content["facts"]["luneta.survey"] = survey
    assert refused(*call(), "luneta.survey")
    assert stranger.is_victim_whole()


@pytest.mark.parametrize(
    "commit",
    ["--upload-pack=touch hacked", "HEAD", "-h", "main", "0" * 39, "0" * 41, "A" * 40, "", 7, None],
)
def test_a_commit_that_is_none_does_not_reach_git(stranger, call, commit):
    stranger.content["facts"]["luneta.git_commit"] = commit
    assert refused(*call(), "luneta.git_commit")


def refused(status, told, *words):
    """Whether it ended with one message and the status 2."""
    assert status == 2, told
    assert "Traceback" not in told
    assert "The run cannot be reproduced: " in told
    assert all(word in told for word in words), told
    return True


def places(content, path=()):
    """Give the way to every value of a record."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict) and (*path, key) != ("config",):
            yield from places(value, (*path, key))


def test_a_value_of_any_other_type_is_refused_or_does_not_matter(stranger):
    stranger.with_input("tiles/a.fits")
    stranger.with_diff(b"x")
    stranger.record.parent.mkdir(parents=True, exist_ok=True)
    tried = 0
    for path in list(places(stranger.content)):
        for value in (None, 5, -1.5, "x", "", [], [1], {}, {"a": []}, True, "drop"):
            content = copy.deepcopy(stranger.content)
            section = content
            for key in path[:-1]:
                section = section[key]
            section[path[-1]] = value
            if value == "drop":
                del section[path[-1]]
            stranger.record.write_text(json.dumps(content))
            tried += 1
            try:
                record = read_record(stranger.record)
            except CannotReproduce as error:
                assert str(error)
                continue
            names = [*record.inputs.files, *record.outputs, *record.outputs.values()]
            assert all(isinstance(name, str) for name in names)
            assert all(isinstance(one, str) for one in record.facts.by_name().values())
    assert tried > 200


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"5", b"{}", b"[" * 200_000, b"\xff\xfe", b"1" * 6000,
     b'{"facts": {"luneta.run_id": NaN}}', b'{"checksum": "crc32:00000000", "facts": {}}'],
)  # fmt: skip
def test_a_file_that_is_no_record_is_refused_and_stays(stranger, call, raw):
    stranger.record.parent.mkdir(parents=True)
    stranger.record.write_bytes(raw)
    assert refused(*call(write=False))
    assert stranger.record.read_bytes() == raw
    assert names(stranger.record.parent) == [stranger.record.name]


def test_a_config_that_cannot_work_is_refused(stranger, call):
    stranger.content["config"]["survey"] = "../../victim"
    assert refused(*call(), "survey")
    stranger.content["config"]["survey"] = "other"
    assert refused(*call(), "its config is of the survey other")
    stranger.content["config"] = {"survey": "tiny", "run": "code"}
    assert refused(*call(), "run")


def test_a_record_that_lies_elsewhere_is_refused(stranger, call, tmp_path):
    stranger.folder.mkdir()
    path = tmp_path / "downloads/a.json"
    write_json(path, stranger.content)
    assert refused(*call(run=path, write=False), "results/tiny/runs")
    with pytest.raises(CannotReproduce, match="results/tiny/runs"):
        reproduce.start_of(Path("/a.json"), "tiny")


@pytest.mark.parametrize("place", ["tiny/reproduced", f"tiny/reproduced/{RUN_ID}"])
@pytest.mark.parametrize("inner", ["", RUN_ID])
def test_a_link_on_the_way_is_not_followed(stranger, call, place, inner):
    target = stranger.victim / inner
    target.mkdir(exist_ok=True)
    (target / "precious").write_text("x")
    link = stranger.folder / "results" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    assert refused(*call(), "no link")
    assert (target / "precious").read_text() == "x"
    assert (stranger.victim / "thesis/chapter.tex").exists()
    assert not stranger.is_run()


def test_a_survey_folder_that_is_a_link_is_not_followed(stranger, call, tmp_path):
    target = tmp_path / "elsewhere"
    (target / "reproduced" / RUN_ID).mkdir(parents=True)
    (target / "reproduced" / RUN_ID / "precious").touch()
    (stranger.folder / "results").mkdir(parents=True)
    (stranger.folder / "results/tiny").symlink_to(target)
    assert refused(*call(), "no link")
    assert (target / "reproduced" / RUN_ID / "precious").exists()


@pytest.mark.parametrize(
    "name",
    ["scripts/luneta/files.py", "workflow/Snakefile", "Snakefile", "snakefile", "SNAKEFILE",
     "workflow/profiles/default/config.yaml", "profiles/default/config.yaml", "snakemake.py",
     "yaml/__init__.py", "sitecustomize.py", "envs/install.py", "pyproject.toml", "Makefile",
     ".git", ".git/hooks/post-checkout", ".venv/bin/python", ".snakemake/scripts/x", "a/b.smk",
     "reproduced.json", "results/tiny/objects/a.parquet", "./scripts/x", "tiles/../scripts/x",
     "../checkout/scripts/x", "../../within/checkout/workflow/Snakefile", "matplotlibrc"],
)  # fmt: skip
def test_an_input_does_not_take_the_place_of_code(stranger, call, name):
    if ".git" not in name:
        stranger.with_input(name)
    stranger.content["inputs"]["files"].setdefault(name, {"missing": True})
    assert refused(*call(), "input")
    assert not stranger.is_run()


@pytest.mark.parametrize(
    "name",
    ["/", "//", "/proc", "/dev/../proc/self", "/dev/zero", "/sys", "{survey}", "{survey}/.."],
)
def test_a_folder_without_end_is_not_read(stranger, call, name):
    name = name.replace("{survey}", str(stranger.folder))
    stranger.content["inputs"]["files"][name] = {"bytes": 0, "sha256": "0" * 64}
    assert refused(*call(), "no run is given")


@pytest.mark.parametrize("name", [".", "..", "../..", "../" * 400 + "x", "a\0b", "x" * 9000, ""])
def test_an_input_of_an_impossible_name_is_refused(stranger, call, name):
    stranger.content["inputs"]["files"][name] = {"missing": True}
    assert refused(*call())
    assert not stranger.is_run()


def test_an_input_behind_a_link_of_the_checkout_is_not_laid(stranger, call):
    """The commit is trusted, and has a link by mistake or as users have them."""
    (stranger.repository / "tiles").symlink_to(stranger.victim / "thesis")
    stranger.content["facts"]["luneta.git_commit"] = commit(stranger.repository)
    stranger.with_input("tiles/chapter.tex")
    stranger.with_input("tiles/new.fits")
    assert refused(*call(), "cannot be laid")
    assert stranger.is_victim_whole()
    assert names(stranger.victim / "thesis") == ["chapter.tex"]


def test_a_run_takes_no_module_from_its_inputs_and_writes_through_no_link(stranger, call):
    """Python looks for modules in the working folder, unless told not to."""
    (stranger.repository / "reproduced.json").symlink_to(stranger.victim / "thesis/chapter.tex")
    stranger.content["facts"]["luneta.git_commit"] = commit(stranger.repository)
    for name in ("snakemake", "yaml", "luneta"):
        folder = stranger.folder / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f"open({str(stranger.victim / 'hacked')!r}, 'w')")
        digest = {"bytes": folder.stat().st_size, "sha256": reproduce.path_digest(folder)}
        stranger.content["inputs"]["files"][name] = digest
    stranger.content["outputs"]["catalog/\x1b]0;title\x07\x1b[2J"] = "\x1b[31m"
    stranger.content["facts"]["luneta.version.\x1bx"] = "\x1b[2J"
    stranger.content["inputs"]["left_out"] = "\x1b[2J"
    status, told = call()
    assert status == 0, told
    assert stranger.is_run() and stranger.is_victim_whole()
    assert "\x1b[2J" not in told and "\\x1b[2J" in told


def changed(path, text="x"):
    lines = [f"diff --git a/{path} b/{path}", "new file mode 100644", "--- /dev/null"]
    return "\n".join([*lines, f"+++ b/{path}", "@@ -0,0 +1 @@", f"+{text}", ""]).encode()


def test_changes_are_shown_and_run_only_if_trusted(stranger, call):
    stranger.with_diff(changed("scripts/evil.py") + changed("envs/install.py"))
    status, told = call()
    assert refused(status, told, "scripts/evil.py", "envs/install.py", "TRUST=1")
    assert not stranger.is_run()
    assert not (stranger.folder / "results/tiny/reproduced").exists()
    status, told = call("--trust")
    assert status == 0, told
    assert stranger.is_run() and list(stranger.folder.rglob("evil.py"))


def test_changes_beside_a_record_of_unchanged_code_are_not_applied(stranger, call):
    stranger.with_diff(changed("scripts/evil.py"))
    stranger.content["facts"]["luneta.git_dirty"] = "false"
    stranger.stop_before_run()
    assert refused(*call(), "its environment")
    assert not list(stranger.folder.rglob("evil.py"))


@pytest.mark.parametrize("other", [b"", b"other"])
def test_changes_of_another_digest_are_not_applied(stranger, call, other):
    stranger.with_diff(changed("scripts/evil.py"))
    stranger.record.with_suffix(".diff").write_bytes(other)
    assert refused(*call("--trust"), "not as it was")


LINK = """diff --git a/out b/out
new file mode 120000
--- /dev/null
+++ b/out
@@ -0,0 +1 @@
+{victim}
\\ No newline at end of file
"""


@pytest.mark.parametrize(
    "patch",
    [changed("../" * 12 + "{victim}/hacked"), changed("{victim}/hacked"), changed(".git/config"),
     LINK.encode() + changed("out/hacked"), LINK.encode() + changed("out/thesis/chapter.tex"),
     b"no patch", b""],
)  # fmt: skip
def test_trusted_changes_stay_within_the_checkout(stranger, call, patch):
    stranger.stop_before_run()
    stranger.with_diff(patch.replace(b"{victim}", str(stranger.victim).encode()))
    status, told = call("--trust")
    assert refused(status, told)
    assert stranger.is_victim_whole()
    if b"hacked" not in patch or b".." in patch:
        assert refused(status, told, "git says")


def test_a_commit_of_another_history_is_run_only_if_trusted(stranger, call):
    """As after fetching somebody's pull request."""
    git(stranger.repository, "checkout", "-q", "--detach")
    (stranger.repository / "evil").touch()
    stranger.content["facts"]["luneta.git_commit"] = commit(stranger.repository)
    git(stranger.repository, "checkout", "-q", "-")
    assert refused(*call(), "history of this checkout", "TRUST=1")
    assert not stranger.is_run()
    stranger.stop_before_run()
    assert refused(*call("--trust"), "its environment")
    assert list(stranger.folder.rglob("evil"))


def test_the_config_of_a_record_is_shown_before_anything_is_laid_out(stranger, call):
    """Whoever runs it sees which files are read and which servers asked, though no code is new."""
    given = stranger.content["config"]["input"]
    given["sources"] = "https://elsewhere.org/list.csv"
    given["root"] = "/home/other/\x1b[2J\u202esecret"
    given["remote"]["hosts"] = ["elsewhere.org"]
    stranger.content["facts"]["luneta.git_commit"] = "0" * 40
    status, told = call()
    assert refused(status, told, "git fetch it first")
    assert "sources: https://elsewhere.org/list.csv\n" in told
    assert "- elsewhere.org\n" in told
    assert "/home/other/" in told
    assert not {"\x1b", "\u202e"} & set(told)
    assert told.index("elsewhere.org") < told.index("git fetch it first")


def test_words_of_a_refused_record_do_not_command_the_terminal(stranger, call):
    stranger.content["environment"]["lock"] = "\x1b[2J"
    stranger.stop_before_run()
    status, told = call()
    assert refused(status, told, "\\x1b[2J")
    assert "\x1b" not in told


def test_make_hands_on_trust_and_a_strange_name():
    command = ["make", "-n", "reproduce", 'RUN=a"; touch x; "b', "TRUST=1"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--trust" in told and "touch" not in told
    command = ["make", "-n", "reproduce", "RUN=a", "TRUST=0"]
    assert "--trust" not in subprocess.run(command, capture_output=True, text=True).stdout
