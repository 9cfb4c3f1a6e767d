"""What the stock OpenCode server says of its own API: `openapi.json` is the `/doc` of version 1.18.33, without its prose,
its error answers and the schemas of its events."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("openapi.json").read_text())


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of each route."""
    for path, methods in REFERENCE["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation
