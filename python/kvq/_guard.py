# SPDX-License-Identifier: Apache-2.0
"""Refuses to run beside another distribution that installs into the folder kvq.

Ours is kvq-jit. Another project's distribution is named kvq; with both installed, each one's files overwrite the
other's and what is imported is a mixture. Names of folders tell it: importlib.metadata would take longer than all of
`import kvq`.
"""

import os
import sys

_OURS = "kvq-jit"
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_IMPORTABLE = (".py", ".so", "")  # the last: folders


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or os.curdir)
    except OSError:  # an archive, or an entry that does not exist
        return []


def _distribution(entry: str) -> tuple[str, str] | None:
    """Normalized name and version of a folder of metadata; None for anything else."""
    stem, extension = os.path.splitext(entry)
    if extension not in (".dist-info", ".egg-info"):
        return None
    name, _, rest = stem.partition("-")
    if rest and not rest[0].isdigit():  # a name with a hyphen, as old tools left it
        return None
    return name.lower().replace("_", "-").replace(".", "-"), rest.partition("-")[0]


def _beside(name: str, where: str) -> ImportError:
    return ImportError(
        f"{_OURS} cannot be imported beside the distribution {name} {where}, because both own the folder kvq: run "
        f"`pip uninstall {name}`, then `pip install --force-reinstall {_OURS}`",
        name="kvq",
    )


def refuse_other_kvq() -> None:
    """Raises ImportError where a distribution named kvq is installed anywhere on sys.path."""
    library = os.path.dirname(os.__file__)
    for folder in dict.fromkeys(sys.path):
        # Nothing is installed between the modules of Python itself, and listing those would be most of the cost.
        if folder in (library, os.path.join(library, "lib-dynload")):
            continue
        for entry in _names(folder):
            # The prefix first: a site-packages has hundreds of entries.
            if not entry.lower().startswith("kvq"):
                continue
            found = _distribution(entry)
            if found and found[0] == "kvq":
                raise _beside("kvq", f"{found[1] or 'of unknown version'} in {os.path.abspath(folder)}")


def refuse_other_files() -> None:
    """Raises ImportError where the installed folder kvq has modules that kvq-jit did not install."""
    site = os.path.dirname(_FOLDER)
    recorded = _recorded(site)
    if "__init__.py" not in recorded:  # a build tree or an editable install, whose files are nobody's
        return
    strangers = sorted(e for e in _names(_FOLDER) if e not in recorded and os.path.splitext(e)[1] in _IMPORTABLE)
    if not strangers:
        return
    if owner := _owner(strangers[0]):
        raise _beside(owner[0], f"{owner[1]}, which put {strangers[0]} there")
    raise ImportError(
        f"the folder of {_OURS} has a file {strangers[0]} that {_OURS} did not install: delete {_FOLDER} and run "
        f"`pip install --force-reinstall {_OURS}`",
        name="kvq",
    )


def _recorded(site: str) -> set[str]:
    """First parts of the paths below kvq/ in our record of installed files."""
    for entry in _names(site):
        if entry.startswith("kvq_jit-") and entry.endswith(".dist-info"):
            try:
                with open(os.path.join(site, entry, "RECORD"), encoding="utf-8") as record:
                    return {line[4:].split(",", 1)[0].split("/", 1)[0] for line in record if line.startswith("kvq/")}
            except OSError:
                return set()
    return set()


def _owner(stranger: str) -> tuple[str, str] | None:
    """Name and version of the distribution that a file of the folder kvq belongs to. Slow; on the way to a refusal."""
    from importlib import metadata

    for distribution in metadata.distributions():
        if any(str(path) == f"kvq/{stranger}" for path in distribution.files or ()):
            return distribution.metadata["Name"], distribution.version
    return None
