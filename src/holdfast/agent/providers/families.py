"""What the name of a model says about it, where nobody says more: price lists know what it costs, not what it can. Pure.

An error here costs little: a picture that is not sent, a limit that the provider applies anyway. A configuration wins.
"""

import re
from typing import Any, Final, NamedTuple

from holdfast.core.catalogue import Model
from holdfast.core.config import Modality


class Traits(NamedTuple):
    """`output_max` is 0 where it is not known."""

    family: str = ""
    reasoning: bool = False
    temperature: bool = True
    inputs: tuple[Modality, ...] = ("text",)
    output_max: int = 0


_CLAUDE: Final = re.compile(
    r"claude-(?:(?P<kind>[a-z]+)-)?(?P<major>\d)(?:[-.](?P<minor>\d{1,2})(?!\d))?(?:-(?P<old>[a-z]+))?"
)
_GPT: Final = re.compile(r"(?:^|[/.])(?:gpt-(?P<major>\d)(?:\.(?P<minor>\d))?|o(?P<o>\d))(?P<rest>[^/]*)$")
_GEMINI: Final = re.compile(r"gemini-(?P<major>\d)(?:\.(?P<minor>\d))?-(?P<kind>[a-z]+)")
_THINKS: Final = re.compile(
    r"think|reason|-r1|magistral|qwq|gpt-oss|glm-(?:4\.[5-9]|[5-9])|kimi-k[3-9]|minimax-m|deepseek-v(?:3\.[12]|4)"
    r"|grok-(?:3-mini|4|build|code)|qwen3|nova-2",
    re.IGNORECASE,
)
_SEES: Final = re.compile(
    r"vision|-vl|pixtral|llama-?4|gemma-[34]|grok-4|qwen3\.[5-9]|kimi-k[3-9]|mistral-medium-3", re.I
)

_SEEING: Final[tuple[Modality, ...]] = ("text", "image")
_READING: Final[tuple[Modality, ...]] = ("text", "image", "pdf")
_EVERYTHING: Final[tuple[Modality, ...]] = ("text", "image", "pdf", "audio", "video")


def traits_of(api_id: str) -> Traits:
    if found := _CLAUDE.search(api_id):
        return _claude(found)
    if found := _GPT.search(api_id):
        return _gpt(found)
    if found := _GEMINI.search(api_id):
        return _gemini(found)
    no = "non-reasoning" in api_id
    return Traits(
        reasoning=bool(_THINKS.search(api_id)) and not no, inputs=_SEEING if _SEES.search(api_id) else ("text",)
    )


def _claude(found: re.Match[str]) -> Traits:
    version = _claude_version(found)
    kind = found["kind"] or found["old"] or ""
    if version < (3, 5):
        output = 4_096
    elif version < (3, 7):
        output = 8_192
    elif version < (4, 5) and kind == "opus":
        output = 32_000
    else:
        output = 64_000
    return Traits(
        family=f"claude-{kind}" if kind else "claude",
        reasoning=version >= (3, 7),
        inputs=_READING if version >= (3, 5) else _SEEING,
        output_max=output,
    )


def _claude_version(found: re.Match[str]) -> tuple[int, int]:
    return int(found["major"]), int(found["minor"] or 0)


def _gpt(found: re.Match[str]) -> Traits:
    rest = found["rest"]
    size = next((size for size in ("nano", "mini", "pro", "codex") if size in rest), "")
    if found["o"]:
        return Traits(family="o", reasoning=True, temperature=False, inputs=_READING, output_max=100_000)
    version = int(found["major"]), int(found["minor"] or 0)
    family = f"gpt-{size}" if size else "gpt"
    if version >= (5, 0):
        return Traits(family=family, reasoning=True, temperature=False, inputs=_READING, output_max=128_000)
    if version == (4, 1):
        return Traits(family=family, inputs=_READING, output_max=32_768)
    sees = version == (4, 0) and rest.startswith("o")
    return Traits(family=family, inputs=_READING if sees else ("text",), output_max=16_384 if sees else 4_096)


def _gemini(found: re.Match[str]) -> Traits:
    version = int(found["major"]), int(found["minor"] or 0)
    thinks = version >= (2, 5)
    return Traits(
        family=f"gemini-{found['kind']}",
        reasoning=thinks,
        inputs=_EVERYTHING,
        output_max=65_536 if thinks else 8_192,
    )


# --- variants ---------------------------------------------------------------------------------------------------

Variants = dict[str, dict[str, Any]]

_BUDGETS: Final = {"high": 16_000, "max": 31_999}
_NO_EFFORT: Final = re.compile(r"deepseek|minimax|glm|mistral|magistral|kimi|qwen|sonar", re.I)


def variants_of(npm: str, api_id: str) -> Variants:
    """How hard a reasoning model may think: what OpenCode offers for the wire format, under its names."""
    claude, gpt, gemini = _CLAUDE.search(api_id), _GPT.search(api_id), _GEMINI.search(api_id)
    match npm:
        case "@ai-sdk/anthropic":
            return _claude_variants(claude) if claude else {}
        case "@ai-sdk/amazon-bedrock":
            budgets = _BUDGETS if claude else {}
            return {
                name: {"reasoningConfig": {"type": "enabled", "budgetTokens": budget}}
                for name, budget in budgets.items()
            }
        case "@ai-sdk/openai":
            told = {"reasoningSummary": "auto", "include": ["reasoning.encrypted_content"]}
            return {effort: {"reasoningEffort": effort, **told} for effort in (_gpt_efforts(gpt) if gpt else ())}
        case "@ai-sdk/google" | "@ai-sdk/google-vertex":
            return _gemini_variants(gemini) if gemini else {}
        case "@openrouter/ai-sdk-provider":
            return {effort: {"reasoning": {"effort": effort}} for effort in ("low", "medium", "high")}
        case "@ai-sdk/mistral" | "@ai-sdk/perplexity":
            return {}
        case _ if _NO_EFFORT.search(api_id):
            return {}
        case _:
            return {effort: {"reasoningEffort": effort} for effort in ("low", "medium", "high")}


def _claude_variants(found: re.Match[str]) -> Variants:
    version = _claude_version(found)
    if version >= (4, 6):
        efforts = ("low", "medium", "high", "max")
        return {effort: {"thinking": {"type": "adaptive"}, "effort": effort} for effort in efforts}
    if version == (4, 5) and found["kind"] == "opus":
        enabled = {"type": "enabled", "budgetTokens": _BUDGETS["high"]}
        return {effort: {"thinking": enabled, "effort": effort} for effort in ("low", "medium", "high")}
    return {name: {"thinking": {"type": "enabled", "budgetTokens": budget}} for name, budget in _BUDGETS.items()}


def _gpt_efforts(found: re.Match[str]) -> tuple[str, ...]:
    if found["o"]:
        return "low", "medium", "high"
    version = int(found["major"]), int(found["minor"] or 0)
    if "pro" in found["rest"] or version < (5, 0):
        return ()
    if version == (5, 0):
        return "minimal", "low", "medium", "high"
    return ("none", "low", "medium", "high", "xhigh") if version >= (5, 2) else ("none", "low", "medium", "high")


def _gemini_variants(found: re.Match[str]) -> Variants:
    if int(found["major"]) >= 3:
        efforts = ("low", "high")
        return {effort: {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": effort}} for effort in efforts}
    budgets = {"high": 16_000, "max": 24_576}
    return {
        name: {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": budget}}
        for name, budget in budgets.items()
    }


# --- what goes into every request -------------------------------------------------------------------------------


def default_options(model: Model, session_id: str) -> dict[str, Any]:
    """Options that a request has unless somebody says otherwise. A session's requests begin alike, so OpenAI is told that they
    may share its cache; Gemini shows its reasoning only when asked."""
    match model.api.npm:
        case "@ai-sdk/openai":
            return {"promptCacheKey": session_id}
        case "@ai-sdk/google" | "@ai-sdk/google-vertex" if model.capabilities.reasoning:
            return {"thinkingConfig": {"includeThoughts": True}}
        case _:
            return {}


def small_options(model: Model) -> dict[str, Any]:
    """How a model is kept from thinking long over a small thing, such as a title."""
    npm, gemini = model.api.npm, _GEMINI.search(model.api.id)
    if npm == "@ai-sdk/openai" and model.capabilities.reasoning:
        gpt = _GPT.search(model.api.id)
        efforts = _gpt_efforts(gpt) if gpt else ()
        return {"reasoningEffort": efforts[0]} if efforts else {}
    if npm in ("@ai-sdk/google", "@ai-sdk/google-vertex") and gemini and model.capabilities.reasoning:
        return {"thinkingConfig": {"thinkingLevel": "low"} if int(gemini["major"]) >= 3 else {"thinkingBudget": 0}}
    return {}
