"""What a benchmark writes down: what ran on what, whether the targets are met, the table, and what people say of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

SIDES = {
    "opencode": ("OpenCode", ", stock binary from npm"),
    "reference": ("reference", ""),
    "holdfast": ("Holdfast", ""),
}


def document(
    title: str, *, recipe: str, facts: Mapping[str, str], missed: Sequence[str], table: str, notes: Path
) -> str:
    """`recipe` is what writes it in the justfile; `missed` are the targets that are not met."""
    verdict = "Every target is met." if not missed else "Not met: " + "; ".join(missed) + ". See below."
    sides = "\n".join(f"| {name} | {facts[key]}{what} |" for key, (name, what) in SIDES.items() if key in facts)
    return f"""# {title}

Written by `just {recipe}`; do not edit ({notes.name} is the part that people write).

| | |
| --- | --- |
| date | {facts["date"]}, took {facts["took"]} |
| machine | {facts["machine"]} |
| disk | {facts["disk"]} |
| load | {facts["load"]} |
| system | {facts["system"]} |
{sides}
| command | `{facts["command"]}` |

{verdict}

{table}

{notes.read_text().strip()}
"""
