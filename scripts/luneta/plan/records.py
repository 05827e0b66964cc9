"""Reading the record of a run, which may come from a stranger: nothing in it is taken on trust."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from luneta.config import ConfigError, validate
from luneta.config.fields import Name
from luneta.files import parse_json
from luneta.wording import few

MOST_BYTES = 500_000_000
MOST_TOLD = 3


class CannotReproduce(ValueError):
    """A run cannot be made again; the message says why, and what to do."""


RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|unknown)$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# What the system can name; a longer one, or one with a zero byte, would end the program
FileName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,4000}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Facts(_Part):
    """What decides the results of a run; see `luneta.catalog.provenance.run_facts`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, str]
    survey: Name = Field(alias="luneta.survey")
    run_id: RunId = Field(alias="luneta.run_id")
    git_commit: Commit = Field(alias="luneta.git_commit")
    git_dirty: Literal["true", "false", "unknown"] = Field(alias="luneta.git_dirty")
    environment: Sha256 = Field(alias="luneta.environment_sha256")

    def by_name(self) -> dict[str, str]:
        """Return all facts by the names that they have in the file."""
        return self.model_dump(by_alias=True)


class Changes(_Part):
    """The changes of the code since its commit."""

    sha256: Sha256
    bytes: int
    file: str | None


class Digest(_Part):
    """A file that the run was given."""

    bytes: int | None = None
    sha256: Sha256 | None = None
    missing: bool = False


class Inputs(_Part):
    """All that the run was given."""

    files: dict[FileName, Digest]
    left_out: str | None


class Environment(_Part):
    """The packages of a run."""

    lock: str | None


class Record(_Part):
    """A run; see `luneta.plan.runs.record`."""

    facts: Facts
    config: dict[str, Any]
    environment: Environment
    changes: Changes | None
    inputs: Inputs
    outputs: dict[str, str]
    not_recorded: list[str] = Field(default_factory=list)


def read_record(path: Path) -> Record:
    """Read the record of a run, check the types of all values, and check the config.

    The file is left as it is, whatever it holds.

    Raises
    ------
    CannotReproduce
        If it is not a record, or its config cannot work.
    """
    content = _content(path)
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        raise CannotReproduce(f"{path} is not the record of a run: {_reasons(error)}") from None
    check_secrets(record.not_recorded)
    _check_config(record)
    return record


def _content(path: Path) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CannotReproduce(f"{path} is too large for the record of a run")
        return parse_json(path.read_bytes())
    except OSError as error:
        raise CannotReproduce(f"{path} cannot be read ({error.strerror})") from None
    except CannotReproduce:
        raise
    except ValueError as error:
        raise CannotReproduce(f"{path} is not the record of a run: {str(error):.200}") from None


def _reasons(error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    lines = [f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in errors]
    return few(lines, MOST_TOLD, "; ")


def check_secrets(not_recorded: Sequence[str]) -> None:
    """Insist on a record whose config is whole.

    Raises
    ------
    CannotReproduce
        If passwords or signatures are left out of it, under the keys that are named.
    """
    if not_recorded:
        raise CannotReproduce(
            f"its config held secrets that no record keeps, in {', '.join(not_recorded)}: run the "
            "workflow with the config itself. In input.remote.options name environment variables "
            "({env: NAME}), which are recorded by name"
        )


def _check_config(record: Record) -> None:
    try:
        config = validate(record.config)
    except ConfigError as error:
        raise CannotReproduce(
            f"this version of luneta refuses its config. Is the commit "
            f"{record.facts.git_commit} much older? Check that out and reproduce it there. {error}"
        ) from None
    if config.survey != record.facts.survey:
        raise CannotReproduce(
            f"its config is of the survey {config.survey}, its facts are of {record.facts.survey}: "
            "the record is not as luneta wrote it"
        )
