"""A session's messages → what the LLM is asked. Pure.

Order: prompts as they were answered, each followed by the steps that answered it; so a prompt that came in while another
was being answered stands after that answer, and after a summary that was made meanwhile. Prompts that nobody answers stand
where they were added. Prompts that still wait in the queue are left out.

A conversation that was summarised begins with the summary; what was said before it is left out.

Every tool call is followed by its output, also one that was aborted or lost: providers reject a conversation with a
call that has none, and with it the whole session.
"""

from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import replace

from holdfast.agent.providers.base import (
    AssistantTurn,
    Attachment,
    ConversationItem,
    ModelRequest,
    ReasoningBlock,
    TextBlock,
    ToolCall,
    ToolChoice,
    ToolOutput,
    ToolSpec,
    UserTurn,
)
from holdfast.agent.turn.decide import STRUCTURED
from holdfast.core.messages import (
    AssistantMessage,
    CompactionPart,
    FilePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
    UserMessage,
    WithParts,
)

CONTINUE = (
    "Your last answer was cut off by a technical problem. Everything above was received. Continue exactly where it "
    "stopped, in the middle of a word if need be. Repeat nothing and do not mention the interruption."
)


SUMMARISE = """\
Summarise our conversation so that another engineer, who sees nothing but your summary, can go on with the work at once.
Write down: what the user wants, in the user's own terms, with every constraint and preference; what was found out, with
file paths and names; what was done and what the results were; what failed and why; what is being done right now; what is
left to do. Be complete and exact where the work depends on it, and brief everywhere else. Do not use tools."""

LAST_STEP = """\
This is the last step that you have for this request, and tools cannot be used in it. Say what was done, what is left to do, and
how you would go on."""

FORM_WANTED = f"The answer is wanted in its form: call the tool {STRUCTURED} with it now."

SUMMARY_REQUEST = "What did we do so far?"
_SUMMARISED_OUTPUT_MAX = 2000


def build_request(
    history: Sequence[WithParts],
    *,
    prompt_id: str,
    waiting: Collection[str] = (),
    model_id: str,
    system: tuple[str, ...],
    tools: tuple[ToolSpec, ...],
    tool_choice: ToolChoice = "auto",
    closing: str | None = None,
    output_tokens_max: int | None = None,
) -> ModelRequest:
    """The request for the next step of the turn that answers user message `prompt_id`; the prompts `waiting` are for later.
    If the turn's last step was cut, the text it streamed so far stands at the end, with a request to continue it. If the
    prompt is a request to summarise, so is this. `closing` is what the model is told last."""
    conversation: list[ConversationItem] = []
    answers: dict[str, list[WithParts]] = {}
    for message in history:
        if isinstance(message.info, AssistantMessage):
            answers.setdefault(message.info.parent_id, []).append(message)
    summarises = False
    for message in _as_answered(history, prompt_id):
        if message.info.id in waiting:
            continue
        steps = answers.get(message.info.id, ())
        summarises = any(isinstance(part, CompactionPart) for part in message.parts)
        if summarises and any(is_answer(assistant) for assistant in map(_assistant, steps)):
            conversation = [UserTurn(text=SUMMARY_REQUEST)]
        else:
            conversation.append(UserTurn(text=SUMMARISE) if summarises else _user(message.parts))
        for step in steps:
            conversation += _step(step)
        if message.info.id == prompt_id:
            break
    if summarises:
        conversation = [_shortened(item) for item in conversation]
    if closing is not None:
        conversation.append(UserTurn(text=closing))
    return ModelRequest(
        model_id=model_id,
        system=system,
        conversation=tuple(conversation),
        tools=tools,
        tool_choice=tool_choice,
        output_tokens_max=output_tokens_max,
    )


def _as_answered(history: Sequence[WithParts], prompt_id: str) -> list[WithParts]:
    """The prompts, in the order in which their answers began; the one that is answered now is the last until it has a step."""
    begun: dict[str, int] = {prompt_id: len(history)}
    for at, message in reversed(list(enumerate(history))):
        if isinstance(message.info, AssistantMessage):
            begun[message.info.parent_id] = at
    prompts = [(at, message) for at, message in enumerate(history) if isinstance(message.info, UserMessage)]
    return [message for _, message in sorted(prompts, key=lambda prompt: begun.get(prompt[1].info.id, prompt[0]))]


def used_tokens(history: Sequence[WithParts]) -> int:
    """How many tokens the newest step that was not a summary had, its answer included; 0 if there is none since."""
    for message in reversed(history):
        info = message.info
        if isinstance(info, AssistantMessage) and is_answer(info):
            if info.summary:
                return 0
            tokens = info.tokens
            return tokens.input + tokens.output + tokens.cache.read + tokens.cache.write
    return 0


def is_answer(info: AssistantMessage) -> bool:
    """It is complete and did not fail; to a request for a summary, it is the summary."""
    return info.time.completed is not None and info.error is None


def _assistant(step: WithParts) -> AssistantMessage:
    assert isinstance(step.info, AssistantMessage)
    return step.info


def _shortened(item: ConversationItem) -> ConversationItem:
    """What a summary needs of tools is that they ran, not all that they said."""
    if isinstance(item, ToolOutput):
        return replace(item, output=item.output[:_SUMMARISED_OUTPUT_MAX], attachments=())
    return replace(item, attachments=()) if isinstance(item, UserTurn) else item


def _user(parts: Iterable[Part]) -> UserTurn:
    texts: list[str] = []
    attachments: list[Attachment] = []
    for part in parts:
        match part:
            case TextPart(text=text, ignored=ignored) if not ignored and text:
                texts.append(text)
            case FilePart(mime=mime, url=url) if _is_spelled_out(mime, url):
                pass
            case FilePart(mime=mime, url=url, filename=filename) if url.startswith(("data:", "https:")):
                attachments.append(Attachment(mime=mime, url=url, filename=filename))
            case FilePart(url=url):
                texts.append(f"(The user refers to the file {url})")
            case _:
                pass
    return UserTurn(text="\n\n".join(texts), attachments=tuple(attachments))


def _is_spelled_out(mime: str, url: str) -> bool:
    """Texts and directories that a prompt names are in it as texts."""
    return (mime.startswith("text/") or mime == "application/x-directory") and url.startswith(("file:", "data:"))


def _step(step: WithParts) -> list[ConversationItem]:
    info = _assistant(step)
    text = "".join(part.text for part in step.parts if isinstance(part, TextPart) and not part.ignored)
    if info.time.completed is None and info.finish is None:  # cut: to be continued
        return [AssistantTurn(text=text), UserTurn(text=CONTINUE)] if text else []
    reasoning = "".join(part.text for part in step.parts if isinstance(part, ReasoningPart))
    calls = [part for part in step.parts if isinstance(part, ToolPart) and not _is_incomplete(part)]
    if not (text or calls):
        return []
    blocks = tuple(block for part in step.parts if (block := _block(part)) is not None)
    return [
        AssistantTurn(
            text=text,
            reasoning=reasoning,
            calls=tuple(block for block in blocks if isinstance(block, ToolCall)),
            blocks=blocks,
        ),
        *(_output(part) for part in calls),
    ]


def _block(part: Part) -> TextBlock | ReasoningBlock | ToolCall | None:
    match part:
        case TextPart(text=text, ignored=ignored, metadata=metadata) if text and not ignored:
            return TextBlock(text=text, metadata=metadata)
        case ReasoningPart(text=text, metadata=metadata):
            return ReasoningBlock(text=text, metadata=metadata)
        case ToolPart(call_id=call_id, tool=name, state=state, metadata=metadata) if not _is_incomplete(part):
            return ToolCall(call_id=call_id, name=name, input=state.input, metadata=metadata)
        case _:
            return None


def _is_incomplete(part: ToolPart) -> bool:
    """The model never finished writing this call: it is of no use to it."""
    return isinstance(part.state, ToolError) and bool((part.state.metadata or {}).get("incomplete"))


def _output(part: ToolPart) -> ToolOutput:
    match part.state:
        case ToolCompleted(output=output, attachments=attachments, time=time):
            if time.compacted:
                return ToolOutput(call_id=part.call_id, name=part.tool, output="(Old output, left out.)")
            files = tuple(
                Attachment(mime=file.mime, url=file.url, filename=file.filename) for file in attachments or ()
            )
            return ToolOutput(call_id=part.call_id, name=part.tool, output=output, attachments=files)
        case ToolError(error=error, metadata=metadata):
            so_far = (metadata or {}).get("output")
            output = f"{error}\n\nOutput until then:\n{so_far}" if isinstance(so_far, str) and so_far else error
            return ToolOutput(call_id=part.call_id, name=part.tool, output=output, is_error=True)
        case _:
            return ToolOutput(call_id=part.call_id, name=part.tool, output="(No output: interrupted.)", is_error=True)
