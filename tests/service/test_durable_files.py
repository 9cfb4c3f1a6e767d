"""Small files that must not be lost."""

import fcntl
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.service.durable_files import replace_file


def test_a_file_that_is_replaced_keeps_its_link_and_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", b"new")

    assert (tmp_path / "real").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


@pytest.mark.parametrize("can", [True, False])
def test_where_fsync_stops_at_the_drives_cache_more_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    """macOS, in as far as it can be looked at from elsewhere; some file systems there have only the plain one."""
    asked: list[str] = []

    def control(descriptor: int, what: Any, *more: Any) -> int:
        assert (what, os.fstat(descriptor).st_nlink > 0) == ("F_FULLFSYNC", True)
        asked.append("full")
        if not can:
            raise OSError("not supported")
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", "F_FULLFSYNC", raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("plain"))
    replace_file(tmp_path / "keys", b"kept")

    assert (tmp_path / "keys").read_bytes() == b"kept"
    assert asked == (["full", "full"] if can else ["full", "plain"] * 2)
