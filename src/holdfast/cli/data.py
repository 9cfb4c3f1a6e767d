"""Where records are kept when nobody says otherwise."""

import os
from pathlib import Path


def data_directory(given: Path | None) -> Path:
    """`$XDG_DATA_HOME/holdfast`, `~/.local/share/holdfast` without it; as an absolute path."""
    if given is not None:
        return given.expanduser().absolute()
    # A relative XDG_DATA_HOME counts as none (XDG Base Directory Specification).
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "holdfast"
