"""Write config/README.md, config/default.yaml and config/schema.json from the config's models."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from luneta.config import (
    Annulus,
    AreaRatio,
    Astrometry,
    Augmentation,
    Candidates,
    Catalog,
    Clustering,
    Config,
    Cutouts,
    Detection,
    Extent,
    Extinction,
    Inference,
    Mask,
    Preprocessing,
    Pretraining,
    Provenance,
    Remote,
    Section,
    Simulation,
    SourceColumns,
    StampColumns,
    Stamps,
    Task,
    Tiles,
    Training,
    sections_in,
)
from luneta.files import atomic_path

FOLDER = Path(__file__).resolve().parent.parent / "config"

SECTIONS: list[tuple[str, type[Section]]] = [
    ("Top level", Config),
    ("`input`, of kind `tiles`", Tiles),
    ("`input.columns`, of kind `tiles`", SourceColumns),
    ("`input.detection`, of kind `tiles`", Detection),
    ("`input.astrometry`, of kind `tiles`", Astrometry),
    ("`input`, of kind `stamps`", Stamps),
    ("`input.columns`, of kind `stamps`", StampColumns),
    ("`input.mask`", Mask),
    ("`input.remote`", Remote),
    ("`cutouts`", Cutouts),
    ("`cutouts.extent`", Extent),
    ("`cutouts.annulus`", Annulus),
    ("`cutouts.extinction`", Extinction),
    ("`cutouts.area_ratio`", AreaRatio),
    ("`tasks.<name>`", Task),
    ("`tasks.<name>.candidates`", Candidates),
    ("`training` and `tasks.<name>.training`", Training),
    ("`training.preprocessing`", Preprocessing),
    ("`training.augmentation`", Augmentation),
    ("`pretraining`", Pretraining),
    ("`inference`", Inference),
    ("`clustering`", Clustering),
    ("`catalog`", Catalog),
    ("`provenance`", Provenance),
    ("`simulation`", Simulation),
]

EXAMPLES: dict[tuple[str, str], Any] = {
    ("Config", "survey"): "my_survey",
    ("Tiles", "kind"): "tiles",
    ("Tiles", "tiles"): "config/my_tiles.tsv",
    ("Tiles", "sources"): "path/to/sources.fits",
    ("Tiles", "bands"): ["g", "r", "i"],
    ("Extent", "side"): 12.0,
    ("Extinction", "ebv"): "ebv",
    ("Extinction", "coefficients"): {"g": 3.214, "r": 2.165},
    ("AreaRatio", "radius"): "petrosian_radius",
    ("Clustering", "tasks"): ["morphology"],
    ("Task", "kind"): "multiclass",
    ("Task", "classes"): ["elliptical", "spiral"],
    ("Task", "labels"): ["path/to/labels.csv"],
}

HEAD = """\
<!-- Written by `make schema` from scripts/luneta/config: do not edit. -->

# Settings

A config is one YAML file. It says where the images are, what is cut out of them, and which
questions are put to every object. Start from an example below, save it as
`config/my_survey.yaml`, and run the Snakemake workflow from the repository's top folder:

```bash
.venv/bin/snakemake --configfile config/my_survey.yaml --cores 8 --dry-run
.venv/bin/snakemake --configfile config/my_survey.yaml --cores 8
```

The first line checks the config and lists the jobs; the second runs them. Results go to
`results/<survey>/`. Whatever is not set has the default of the tables below
([default.yaml](default.yaml) holds them all). A key that does not exist, a value out of bounds or
a path that cannot be read stops the run before its first job, with one line for each.

Relative paths start from the folder in which `snakemake` is run. [schema.json](schema.json)
lets editors complete and check a config: put
`# yaml-language-server: $schema=schema.json` in its first line.

## Whole images and a source list

```yaml
survey: my_survey
input:
  kind: tiles
  tiles: config/my_tiles.tsv
  sources: path/to/sources.fits
  columns: {object_id: ID, ra: RA, dec: DEC}
  bands: [g, r, i]
tasks:
  morphology:
    kind: multiclass
    classes: [elliptical, spiral]
    labels: path/to/labels.csv
```

`config/my_tiles.tsv` has one line for each tile and band, its columns separated by tabs; `mask`,
`weight` and `shard` may be left out:

```
tile	band	image	mask	weight
field1	g	images/field1_g.fits[1]	images/field1_g_mask.fits	images/field1_g_weight.fits
field1	r	images/field1_r.fits[1]	images/field1_r_mask.fits	images/field1_r_weight.fits
```

A tile is the unit of work: a tile added later is computed alone. An image that is missing or
broken does not stop the run; its objects are flagged, and counted in the report.

## One image per object

```yaml
survey: my_stamps
input:
  kind: stamps
  table: path/to/stamps.csv
  image: "images/{object_id}.jpg"
  bands: [red, green, blue]
  pixels: display
cutouts: {size: 96}
tasks:
  lens:
    kind: binary
    classes: [nolens, lens]
    labels: path/to/labels.csv
    training: {weights: path/to/backbone.weights.h5}
```

For FITS stamps with one file a band, write `image: "images/{object_id}_{band}.fits"` and leave
`pixels` at `flux`.

# Every setting
"""

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} of them",
}
TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "null": "`null`",
}


def allowed(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema or "oneOf" in schema:
        return "section"
    if "anyOf" in schema:
        return ", or ".join(allowed(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        kind = f"list of {allowed(schema['items'])}"
    elif schema.get("type") == "object":
        values = schema["additionalProperties"]
        kind = f"name: {'anything' if values is True else allowed(values)}, ..."
    else:
        kind = "path" if schema.get("format") == "path" else TYPES[schema["type"]]
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    return ", ".join([kind, *bounds])


def flow(value: Any) -> str:
    """Write a value as YAML on one line."""
    if isinstance(value, Path):
        value = str(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def default_text(field: FieldInfo) -> str:
    """Say what a key is where the config does not set it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if isinstance(value, Section) else f"`{flow(value)}`"


def fields_of(section: type[Section]) -> list[tuple[str, FieldInfo]]:
    """List a section's keys, `kind` first: it decides which others there are."""
    return sorted(section.model_fields.items(), key=lambda item: item[0] != "kind")


def table(section: type[Section]) -> Iterator[str]:
    """Write the table of a section's keys, line by line."""
    properties = section.model_json_schema()["properties"]
    yield "| key | allowed | default | |"
    yield "|---|---|---|---|"
    for name, field in fields_of(section):
        cells = [f"`{name}`", allowed(properties[name]), default_text(field), field.description]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def readme() -> str:
    """Give the text of config/README.md."""
    lines = [HEAD]
    for title, section in SECTIONS:
        lines += [f"## {title}", "", section.__doc__.splitlines()[0], "", *table(section), ""]
    return "\n".join(lines).rstrip() + "\n"


def commented(section: type[Section], indent: str) -> Iterator[str]:
    """Write a section's keys with their defaults, each below its description, line by line."""
    for name, field in fields_of(section):
        width = max(40, 98 - len(indent))
        yield from (f"{indent}# {line}" for line in textwrap.wrap(field.description, width))
        yield from setting(section, name, field, indent)


def setting(section: type[Section], name: str, field: FieldInfo, indent: str) -> Iterator[str]:
    """Write one key with its default, or with an example where it has none."""
    inner = next(sections_in(field.annotation), None)
    deeper = indent + "  "
    if (section, name) == (Task, "training"):
        yield f"{indent}{name}: {{}}"
    elif inner is Task:
        yield from [f"{indent}{name}:", f"{deeper}morphology: # an example; the name is yours"]
        yield from commented(Task, deeper + "  ")
    elif inner is not None and not field.is_required() and field.default is None:
        yield f"{indent}# {name}:"
        yield from (line.replace(deeper, f"{indent}#   ", 1) for line in commented(inner, deeper))
    elif inner is not None:
        yield f"{indent}{name}:"
        yield from commented(inner, deeper)
    else:
        example = EXAMPLES.get((section.__name__, name))
        value = field.get_default(call_default_factory=True) if example is None else example
        yield f"{indent}{name}: {flow(value)}"


def default_yaml() -> str:
    """Give the text of config/default.yaml."""
    head = [
        "# Every key with its default; required ones hold an example, here of kind tiles.",
        "# Written by `make schema` from scripts/luneta/config: do not edit, but copy.",
        "",
    ]
    return "\n".join([*head, *commented(Config, "")]) + "\n"


def generated() -> dict[Path, str]:
    """Give the content of every generated file."""
    schema = json.dumps(Config.model_json_schema(), indent=2) + "\n"
    return {
        FOLDER / "README.md": readme(),
        FOLDER / "default.yaml": default_yaml(),
        FOLDER / "schema.json": schema,
    }


if __name__ == "__main__":
    for path, content in generated().items():
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
