"""What a step reads of the messages before it: the same conversation as from all of them, from a few of them."""

import os
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.agent.providers.conversation import build_request, used_tokens
from holdfast.agent.runner.history import first_snapshot, last_step, since_summary, tokens_in_use
from holdfast.core.events import Event
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import (
    CompactionPart,
    MessageError,
    StepStartPart,
    UnknownError,
    UnknownErrorData,
    WithParts,
)
from holdfast.core.session import CacheTokens, Tokens
from holdfast.storage.memory import MemoryStore
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import Story

ERROR: MessageError = UnknownError(data=UnknownErrorData(message="No"))

KINDS = ["prompt", "summarise", "answer", "unfinished", "failed"]
said = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=30)


class CountingStore(MemoryStore):
    """`read` counts the messages that were read."""

    read_messages = 0

    async def message_page(self, *arguments: object, **keywords: object):
        page = await super().message_page(*arguments, **keywords)  # type: ignore[arg-type]
        self.read_messages += len(page.messages)
        return page


def new_store() -> CountingStore:
    clock = StoreClock()
    return CountingStore(clock, IdGenerator(clock, os.urandom))


async def tell(store: MemoryStore, plot: Sequence[tuple[str, int]]) -> list[str]:
    """Append such messages, each answer to one of the newest prompts; answers the ids of the prompts."""
    story = Story()
    await store.append(story.id, [story.created()])
    prompts: list[str] = []
    for number, (kind, back) in enumerate(plot):
        id = f"msg_{number}"
        if kind in ("prompt", "summarise"):
            part = story.prompt(f"prt_{number}", f"prompt {number}", id)
            compaction = CompactionPart(id=part.id, session_id=story.id, message_id=id, auto=False)
            said: list[Event] = [
                story.message(story.user(id)),
                story.part(part if kind == "prompt" else compaction),
            ]
            prompts.append(id)
        elif not prompts:
            continue
        else:
            info = story.assistant(id, prompts[-1 - back % len(prompts)], completed=kind != "unfinished")
            info = replace(info, error=ERROR if kind == "failed" else None, summary=back == 0 or None)
            tokens = Tokens(input=number, output=1, reasoning=0, cache=CacheTokens(read=0, write=0))
            text = story.text(f"prt_{number}", f"answer {number}", message=id, closed=True)
            said = [
                story.message(replace(info, time=replace(info.time, completed=None), error=None)),
                story.part(text),
                story.message(replace(info, tokens=tokens)),
            ]
        await store.append(story.id, said)
    return prompts


@given(said)
async def test_a_step_is_told_what_it_would_be_told_from_the_whole_session(plot: list[tuple[str, int]]) -> None:
    store = new_store()
    prompts = await tell(store, plot)
    history = await store.history("ses_story")

    def request(messages: Sequence[WithParts], prompt: str) -> object:
        return build_request(messages, prompt_id=prompt, model_id="m", system=(), tools=())

    for prompt in prompts:
        assert request(await since_summary(store, "ses_story", prompt), prompt) == request(history, prompt)
        steps = [message for message in history if getattr(message.info, "parent_id", None) == prompt]
        assert await last_step(store, "ses_story", prompt) == (steps[-1] if steps else None)
    assert await tokens_in_use(store, "ses_story") == used_tokens(history)


async def test_what_is_read_does_not_grow_with_what_was_said_before_a_summary() -> None:
    read: list[int] = []
    for length in (100, 500):
        store = new_store()
        plot = [("prompt", 0), ("answer", 1)] * length + [("summarise", 0), ("answer", 0), ("prompt", 0), ("answer", 1)]
        prompts = await tell(store, plot)
        assert len(await since_summary(store, "ses_story", prompts[-1])) == 4
        await tokens_in_use(store, "ses_story")
        read.append(store.read_messages)

    assert read[0] == read[1] < 20


async def test_the_first_snapshot_of_the_files_is_found_from_the_beginning() -> None:
    store, story = new_store(), Story()
    await tell(store, [("prompt", 0), ("answer", 0)] * 50)
    assert await first_snapshot(store, story.id) is None
    for id, snapshot in (("msg_2", "first"), ("msg_90", "second"), ("msg_0", None)):
        start = StepStartPart(id=f"prt_{id}", session_id=story.id, message_id=id, snapshot=snapshot)
        await store.append(story.id, [story.part(start)])
    store.read_messages = 0

    assert await first_snapshot(store, story.id) == "first"
    assert store.read_messages < 10
