"""Write the conda environment files from the pinned requirements.

The packages come from the package index through conda's pip section, so that conda and pip
users run the same versions; conda brings Python itself.
"""

import re
from pathlib import Path

ENVS = Path(__file__).resolve().parent
HEAD = "# Written by `make requirements`: do not edit.\n"
VARIANTS = {"cpu": "requirements.in", "gpu": "requirements-gpu.in"}


def direct(path):
    """List the names in a requirements.in file, with their extras: {name: [extras]}."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    matches = (re.match(r"([\w.-]+)(\[[\w,-]+\])?", line) for line in lines if line)
    return {match[1]: match[2] or "" for match in matches}


def pins(path):
    """List the pins of a compiled file: (name, `==version`, ` ; marker` or nothing)."""
    pattern = r"^([\w.-]+)(?:\[[\w,-]+\])?(==[^\s;]+)( ; [^\\\n]+?)? \\$"
    return re.findall(pattern, path.read_text(), re.MULTILINE)


def environment(variant):
    """Give the text of envs/luneta-{variant}.yaml."""
    extras = direct(ENVS / VARIANTS[variant])
    lines = [
        f'      - "{name}{extras[name]}{version}{marker}"\n'
        for name, version, marker in pins(ENVS / f"requirements-{variant}.txt")
        if name in extras
    ]
    return (
        HEAD
        + f"name: luneta-{variant}\n"
        + "channels:\n  - conda-forge\n  - nodefaults\n"
        + 'dependencies:\n  - "python >=3.11,<3.14"\n  - pip\n  - pip:\n'
        + "".join(lines)
    )


if __name__ == "__main__":
    for variant in VARIANTS:
        (ENVS / f"luneta-{variant}.yaml").write_text(environment(variant))
