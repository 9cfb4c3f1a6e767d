"""A prompt that was answered with itself.

The kill test of summaries found that whoever waits for an answer (`POST /session/{sessionID}/message`) was given his own
message back, when the conversation had to be summarised before it could be answered: the steps of such a turn answer
prompts that the engine wrote, and nobody looked for those.
"""

import json
from pathlib import Path

import pytest

from holdfast.testing.scripted_provider import finished, text
from tests.server.harness import CONFIG, Server, texts

SMALL = {"main": {"limit": {"context": 2000, "output": 100}}}


@pytest.mark.parametrize("again", [False, True])
async def test_the_answer_after_a_summary_is_what_the_prompt_is_answered(tmp_path: Path, again: bool) -> None:
    scripts = [
        [*text("One."), finished(input=5000)],
        text("They counted."),
        text("Two."),
    ]
    small = {**CONFIG, "provider": {"scripted": {"npm": "scripted", "models": SMALL}}}
    environ = {"OPENCODE_CONFIG_CONTENT": json.dumps(small)}
    async with Server(tmp_path, tmp_path / "data", scripts, environ=environ) as server:
        session = await server.session()
        await server.prompt(session, "Count")
        answer = await server.prompt(session, "Count on", messageID="msg_second")
        if again:
            answer = await server.prompt(session, "Count on", messageID="msg_second")

        assert answer.json()["info"]["role"] == "assistant"
        assert texts(answer.json()) == "Two."
        shown = (await server.api.get(f"/v1/chat/{session}/messages")).json()
        assert [message["role"] for message in shown] == ["user", "assistant"] * 2
