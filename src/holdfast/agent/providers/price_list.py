"""Models of known providers, their context sizes and prices: what genai-prices ships. Never asks the network.

Importing the list takes a third of a second, so it is read when a known provider is first used, and only once. It lists
everything that was ever sold; left out is what is retired, what is no conversation (pictures, speech, embeddings), and names
that stand for several models.
"""

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holdfast.core.catalogue import CacheCost, ContextTier, CostTier, ModelCost, TieredCost
from holdfast.core.known_providers import KNOWN

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

_LARGE: Final = 200_000

_NO_CONVERSATION: Final = re.compile(
    r"embed|whisper|tts|audio|realtime|transcribe|image|dall-e|moderation|search|computer-use|live|guard|rerank|ocr|veo"
    r"|imagen|speech|voice|orpheus|sonic|titan-|davinci|babbage|curie|^ada$|instruct-0914|banana|omni|robotics|streaming"
    r"|^ft:|ft-$|^regional\.|safeguard|translate|multi-agent|-latest-|voxtral|rosalind|decision",
    re.IGNORECASE,
)


class Listed(NamedTuple):
    """`context` is 0 where it is not known."""

    name: str
    context: int
    cost: ModelCost


@functools.cache
def listed_models(provider_id: str) -> Mapping[str, Listed]:
    """The models of one of `KNOWN`; empty for any other. May be called in a thread."""
    known = KNOWN.get(provider_id)
    if known is None:
        return {}
    from genai_prices.data_snapshot import get_snapshot

    now = datetime.now(UTC)
    provider = next((provider for provider in get_snapshot().providers if provider.id == known.prices), None)
    models: dict[str, Listed] = {}
    for model in provider.models if provider is not None else ():
        retired = model.deprecated or (model.description or "").startswith("Retired")
        foreign = provider_id == "google" and not model.id.startswith("gemini")
        if retired or foreign or _NO_CONVERSATION.search(model.id):
            continue
        cost = _cost(model.get_prices(now))
        if cost.output or model.context_window:
            models[model.id] = Listed(model.name or model.id, model.context_window or 0, cost)
    return models


def _cost(prices: "ModelPrice") -> ModelCost:
    fields: dict[str, Any] = vars(prices)
    sizes = sorted({tier.start for price in fields.values() if hasattr(price, "tiers") for tier in price.tiers})
    base = _at(fields, 0)
    tiers = tuple(_tier(size, _at(fields, size + 1)) for size in sizes)
    over = next((_at(fields, size + 1) for size in sizes if size >= _LARGE), None)
    return ModelCost(
        input=base.input,
        output=base.output,
        cache=base.cache,
        tiers=tiers or None,
        experimental_over_200k=over,
    )


def _tier(size: int, cost: TieredCost) -> CostTier:
    return CostTier(input=cost.input, output=cost.output, cache=cost.cache, tier=ContextTier(size=size))


def _at(fields: Mapping[str, Any], tokens: int) -> TieredCost:
    """The prices for a prompt of so many tokens."""

    def price(name: str) -> float:
        value = fields.get(name)
        if value is not None and hasattr(value, "tiers"):
            reached = [tier for tier in value.tiers if tokens > tier.start]
            value = max(reached, key=lambda tier: tier.start).price if reached else value.base
        return float(value or 0)

    # Without a price of its own, what comes from a cache costs what all input costs.
    read = price("input_mtok" if fields.get("cache_read_mtok") is None else "cache_read_mtok")
    return TieredCost(
        input=price("input_mtok"),
        output=price("output_mtok"),
        cache=CacheCost(read=read, write=price("cache_write_mtok")),
    )
