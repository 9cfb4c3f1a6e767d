"""The stock OpenCode program (npm package `opencode-ai`), run so that it touches nothing of the user's and downloads nothing."""

import os
import platform
from pathlib import Path

_SWITCHES = ("DISABLE_MODELS_FETCH", "DISABLE_AUTOUPDATE", "DISABLE_LSP_DOWNLOAD", "DISABLE_DEFAULT_PLUGINS")


def find_opencode(node_modules: Path) -> Path | None:
    """The binary that npm installed for this platform; None if there is none."""
    system = platform.system().lower()
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    binary = node_modules / f"opencode-{system}-{machine}" / "bin" / "opencode"
    return binary if binary.exists() else None


def opencode_environment(home: Path) -> dict[str, str]:
    """Every place it keeps something in is below `home`."""
    homes = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    switches = {f"OPENCODE_{name}": "1" for name in _SWITCHES}
    return {**os.environ, **homes, **switches, "HOME": str(home)}
