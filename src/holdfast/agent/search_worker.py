"""Searches files for a regular expression: `python -I -S search_worker.py`, where ripgrep is not installed.

A program of its own, because a regular expression of Python can take for ever: whoever started it ends it. Imports only
the standard library. Standard input: a line of JSON `{"pattern", "matches_max", "file_bytes_max", "seconds_max"}`, then
file names, each ended by NUL. Output: a line of JSON per matching line, in the form that `rg --json` has for a match. Exit
status 2: the pattern is wrong; standard error says how.
"""

import json
import os
import re
import resource
import stat
import sys
import time
from typing import BinaryIO

_SAMPLE_BYTES = 8192


def main() -> int:
    order = json.loads(sys.stdin.buffer.readline())
    names = sys.stdin.buffer.read().split(b"\0")
    seconds: float = order["seconds_max"]
    # Should the server die, nobody ends us: then the kernel does.
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 5, int(seconds) + 5))
    deadline = time.monotonic() + seconds
    try:
        pattern = re.compile(order["pattern"])
    except (re.error, OverflowError, RecursionError) as error:
        print(error, file=sys.stderr)
        return 2
    left: int = order["matches_max"]
    for name in names:
        if left <= 0 or time.monotonic() > deadline:
            break
        left -= _search(name, pattern, left, order["file_bytes_max"])
        sys.stdout.flush()
    return 0


def _search(name: bytes, pattern: re.Pattern[str], left: int, bytes_max: int) -> int:
    """How many lines were found."""
    file = _open(name, bytes_max)
    if file is None:
        return 0
    found = 0
    offset = 0
    with file:
        for number, line in enumerate(file, start=1):
            # Lone bytes become lone surrogates and count as one byte again below.
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="surrogateescape")
            spans = [match.span() for match in pattern.finditer(text)]
            if spans:
                print(json.dumps(_match(name, line, text, number, offset, spans)))
                found += 1
                if found >= left:
                    break
            offset += len(line)
    return found


def _match(name: bytes, line: bytes, text: str, number: int, offset: int, spans: list[tuple[int, int]]) -> object:
    return {
        "type": "match",
        "data": {
            "path": {"text": name.decode(errors="replace")},
            "lines": {"text": line.decode(errors="replace")},
            "line_number": number,
            "absolute_offset": offset,
            "submatches": [
                {
                    "match": {"text": _bytes(text[start:end]).decode(errors="replace")},
                    "start": len(_bytes(text[:start])),
                    "end": len(_bytes(text[:end])),
                }
                for start, end in spans
            ],
        },
    }


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _open(name: bytes, bytes_max: int) -> BinaryIO | None:
    """None for what is no text file of reasonable size. Never follows a link, never waits for a pipe."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    found = os.fstat(descriptor)
    is_text = stat.S_ISREG(found.st_mode) and found.st_size <= bytes_max and b"\0" not in _sample(descriptor)
    if not is_text:
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _sample(descriptor: int) -> bytes:
    return os.pread(descriptor, _SAMPLE_BYTES, 0)


if __name__ == "__main__":
    sys.exit(main())
