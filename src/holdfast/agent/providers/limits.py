"""How long an adapter waits for its LLM, from the provider's options."""

from typing import Final, NamedTuple

from holdfast.core.config import ProviderOptions

SILENCE_MS: Final = 300_000
"""How long the LLM may say nothing, unless `options.chunkTimeout` (`headerTimeout` before its first word) says another."""


class Limits(NamedTuple):
    """In seconds; None is no limit: for a whole answer, until it begins, between two pieces of it."""

    whole_s: float | None
    header_s: float | None
    silence_s: float | None


def limits_of(options: ProviderOptions) -> Limits:
    return Limits(
        whole_s=_seconds(options.timeout, None),
        header_s=_seconds(options.header_timeout, SILENCE_MS),
        silence_s=_seconds(options.chunk_timeout, SILENCE_MS),
    )


def silent_for(seconds: float | None) -> str:
    return f"The model said nothing for {'too long' if seconds is None else f'{seconds:g} seconds'}."


TOO_LONG: Final = "The model took longer than options.timeout allows."


def _seconds(milliseconds: int | bool | None, default_ms: int | None) -> float | None:
    if milliseconds is False:
        return None
    chosen = default_ms if milliseconds is None or milliseconds is True else milliseconds
    return chosen / 1000 if chosen else None
