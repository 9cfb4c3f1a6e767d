"""Providers that need nothing but a key: what they speak, where they are, and where the key may be. Pure.

The ids and the variables are OpenCode's. Which models they have and what those cost is in `agent.providers.price_list`.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class KnownProvider(NamedTuple):
    """`npm` stands for the wire format; `address` is empty where that format knows it. `prices` is the provider's id in
    genai-prices, `env` the variables that may hold the key, the first one that is set counts."""

    name: str
    npm: str
    env: tuple[str, ...]
    prices: str
    address: str = ""


_COMPATIBLE: Final = "@ai-sdk/openai-compatible"

KNOWN: Final[Mapping[str, KnownProvider]] = {
    "amazon-bedrock": KnownProvider("Amazon Bedrock", "@ai-sdk/amazon-bedrock", ("AWS_BEARER_TOKEN_BEDROCK",), "aws"),
    "anthropic": KnownProvider("Anthropic", "@ai-sdk/anthropic", ("ANTHROPIC_API_KEY",), "anthropic"),
    "baseten": KnownProvider(
        "Baseten", _COMPATIBLE, ("BASETEN_API_KEY",), "baseten", "https://inference.baseten.co/v1"
    ),
    "cerebras": KnownProvider("Cerebras", "@ai-sdk/cerebras", ("CEREBRAS_API_KEY",), "cerebras"),
    "deepseek": KnownProvider("DeepSeek", "@ai-sdk/deepseek", ("DEEPSEEK_API_KEY",), "deepseek"),
    "fireworks-ai": KnownProvider("Fireworks AI", "@ai-sdk/fireworks", ("FIREWORKS_API_KEY",), "fireworks"),
    "google": KnownProvider(
        "Google", "@ai-sdk/google", ("GOOGLE_GENERATIVE_AI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"), "google"
    ),
    "groq": KnownProvider("Groq", "@ai-sdk/groq", ("GROQ_API_KEY",), "groq"),
    "mistral": KnownProvider("Mistral", "@ai-sdk/mistral", ("MISTRAL_API_KEY",), "mistral"),
    "moonshotai": KnownProvider(
        "Moonshot AI", _COMPATIBLE, ("MOONSHOT_API_KEY",), "moonshotai", "https://api.moonshot.ai/v1"
    ),
    "novita-ai": KnownProvider("NovitaAI", _COMPATIBLE, ("NOVITA_API_KEY",), "novita", "https://api.novita.ai/openai"),
    "openai": KnownProvider("OpenAI", "@ai-sdk/openai", ("OPENAI_API_KEY",), "openai"),
    "openrouter": KnownProvider("OpenRouter", "@openrouter/ai-sdk-provider", ("OPENROUTER_API_KEY",), "openrouter"),
    "perplexity": KnownProvider("Perplexity", "@ai-sdk/perplexity", ("PERPLEXITY_API_KEY",), "perplexity"),
    "togetherai": KnownProvider("Together AI", "@ai-sdk/togetherai", ("TOGETHER_API_KEY",), "together"),
    "xai": KnownProvider("xAI", "@ai-sdk/xai", ("XAI_API_KEY",), "x-ai"),
    "zai": KnownProvider("Z.AI", _COMPATIBLE, ("ZHIPU_API_KEY",), "zai", "https://api.z.ai/api/paas/v4"),
}

KEY_VARIABLES: Final = frozenset(name for known in KNOWN.values() for name in known.env)
"""Variables that hold keys of LLMs: they are for the server, and not for what it runs."""
