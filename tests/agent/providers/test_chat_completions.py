"""The pure half of the OpenAI-compatible adapter: what is asked, and what comes of each thing that servers send."""

import json
from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.providers.base import (
    AssistantTurn,
    Attachment,
    Chunk,
    Finished,
    FinishReason,
    ModelRequest,
    ProviderError,
    ReasoningChunk,
    TextChunk,
    ToolCall,
    ToolCallChunk,
    ToolOutput,
    ToolSpec,
    UserTurn,
)
from holdfast.agent.providers.chat_completions import StreamDecoder, request_body
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.registry import ProviderRegistry
from holdfast.core.catalogue import Model
from holdfast.core.config import Config, CostConfig, ModalitiesConfig, ModelConfig, ProviderConfig
from holdfast.core.session import NO_TOKENS, CacheTokens, Tokens


def model(**settings: Any) -> Model:
    config = Config(provider={"p": ProviderConfig(models={"m": ModelConfig(**settings)})})
    return ProviderRegistry(config, connections=Connections(), environ={}).model("p", "m")


def decoder(used_ids: Iterable[str] = (), **settings: Any) -> StreamDecoder:
    numbers = count(1)
    return StreamDecoder(model(**settings), used_ids=used_ids, new_id=lambda: f"new_{next(numbers)}")


def decoded(*pieces: dict[str, Any] | str, used_ids: Iterable[str] = ()) -> list[Chunk]:
    """All chunks of a stream that ends in good order; each piece is an event's data, or its first choice's delta."""
    stream = decoder(used_ids)
    chunks: list[Chunk] = []
    for piece in pieces:
        if isinstance(piece, dict) and not {"choices", "usage", "error", "object"} & piece.keys():
            piece = {"choices": [{"delta": piece}]}
        chunks += stream.feed(piece if isinstance(piece, str) else json.dumps(piece))
    return chunks + stream.finish()


def calls(chunks: Iterable[Chunk]) -> dict[str, tuple[str | None, str]]:
    """Name and arguments of each call; only its first chunk may bring the name."""
    found: dict[str, tuple[str | None, str]] = {}
    for chunk in chunks:
        if isinstance(chunk, ToolCallChunk):
            name, arguments = found.get(chunk.call_id, (chunk.name, ""))
            assert (chunk.call_id in found) == (chunk.name is None)
            found[chunk.call_id] = (name, arguments + chunk.arguments)
    return found


def call_delta(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    delta: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [delta | {key: value for key, value in (("index", index), ("id", id)) if value is not None}]}


STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
CALLS = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}


# --- text and reasoning


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "reasoning_text"])
def test_reasoning_has_three_names(field: str) -> None:
    assert decoded({field: "hm", "content": ""}, {"content": "yes"}, STOP)[:2] == [
        ReasoningChunk("hm"),
        TextChunk("yes"),
    ]


def test_reasoning_that_comes_under_two_names_counts_once() -> None:
    assert decoded({"reasoning": "hm", "reasoning_content": "hm"}, STOP)[:-1] == [ReasoningChunk("hm")]


def test_content_may_be_a_list_of_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
        {"type": "reference", "reference_ids": [1]},
    ]

    assert decoded({"content": parts}, STOP)[:-1] == [ReasoningChunk("hm"), TextChunk("yes")]


def test_a_refusal_is_text_that_the_user_sees() -> None:
    assert decoded({"content": None, "refusal": "I cannot."}, STOP)[:-1] == [TextChunk("I cannot.")]


def test_only_the_first_choice_counts() -> None:
    assert decoded({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}, STOP)[0] == TextChunk("a")


def test_empty_data_and_unknown_objects_are_nothing() -> None:
    assert decoded("", "  ", "{}", '{"choices": null}', '{"choices": [{}]}', STOP) == [
        Finished(reason="stop", tokens=NO_TOKENS)
    ]


# --- tool calls


def test_parallel_calls_are_told_apart_by_index() -> None:
    chunks = decoded(
        call_delta(0, "a", "read", ""),
        call_delta(1, "b", "bash", ""),
        call_delta(0, arguments='{"x"'),
        call_delta(1, arguments='{"y"'),
        call_delta(0, arguments=": 1}"),
        call_delta(1, arguments=": 2}"),
        CALLS,
    )

    assert calls(chunks) == {"a": ("read", '{"x": 1}'), "b": ("bash", '{"y": 2}')}
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].reason == "tool-calls"


def test_a_call_without_id_gets_one() -> None:
    assert calls(decoded(call_delta(0, None, "read", "{}"), call_delta(1, "", "read", "{}"), CALLS)) == {
        "new_1": ("read", "{}"),
        "new_2": ("read", "{}"),
    }


def test_an_id_repeated_with_every_piece_is_still_one_call() -> None:
    assert calls(decoded(call_delta(0, "a", "read", '{"x":'), call_delta(0, "a", "read", "1}"), CALLS)) == {
        "a": ("read", '{"x":1}')
    }


def test_an_id_that_two_calls_share_is_given_to_one_of_them() -> None:
    chunks = decoded(
        call_delta(0, "same", "read", '{"x":'),
        call_delta(1, "same", "bash", '{"y":'),
        call_delta(0, "same", None, "1}"),
        call_delta(1, "same", None, "2}"),
        CALLS,
    )

    assert calls(chunks) == {"same": ("read", '{"x":1}'), "new_1": ("bash", '{"y":2}')}


def test_an_id_that_the_conversation_already_has_is_not_used_again() -> None:
    assert calls(decoded(call_delta(0, "call_0", "read", "{}"), CALLS, used_ids=["call_0"])) == {
        "new_1": ("read", "{}")
    }


def test_another_id_at_the_same_index_is_another_call() -> None:
    assert calls(decoded(call_delta(0, "a", "read", "{}"), call_delta(0, "b", "bash", "{}"), CALLS)) == {
        "a": ("read", "{}"),
        "b": ("bash", "{}"),
    }


@pytest.mark.parametrize("index", [None, 0])
def test_whole_calls_without_ids_are_told_apart_by_their_names_and_arguments(index: int | None) -> None:
    whole = [
        call_delta(index, None, name, arguments)
        for name, arguments in (("read", '{"x":1}'), ("read", '{"x":2}'), ("now", ""), ("bash", {"y": 3}))
    ]

    assert calls(decoded(*whole, CALLS)) == {
        "new_1": ("read", '{"x":1}'),
        "new_2": ("read", '{"x":2}'),
        "new_3": ("now", "{}"),
        "new_4": ("bash", '{"y":3}'),
    }


def test_a_name_repeated_with_every_piece_begins_no_new_call() -> None:
    pieces = [call_delta(0, None, "read", piece) for piece in ('{"x":', '{"y":1', "}}", "")]

    assert calls(decoded(*pieces, CALLS)) == {"new_1": ("read", '{"x":{"y":1}}')}


def test_nothing_of_a_call_goes_out_before_its_name() -> None:
    assert calls(decoded(call_delta(0, "a", None, '{"x"'), call_delta(0, None, "read", ":1}"), CALLS)) == {
        "a": ("read", '{"x":1}')
    }


def test_a_call_that_never_gets_a_name_is_one_that_the_model_will_hear_about() -> None:
    assert calls(decoded(call_delta(0, "a", None, '{"x":1}'), CALLS)) == {"a": ("unknown", '{"x":1}')}


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert calls(decoded(call_delta(0, "a", "now"), CALLS)) == {"a": ("now", "{}")}


def test_the_old_function_call_is_a_tool_call() -> None:
    old = {"choices": [{"delta": {}, "finish_reason": "function_call"}]}
    chunks = decoded(
        {"function_call": {"name": "read", "arguments": '{"x"'}}, {"function_call": {"arguments": ":1}"}}, old
    )

    assert calls(chunks) == {"new_1": ("read", '{"x":1}')}


def test_an_index_may_be_a_text() -> None:
    delta = {"tool_calls": [{"index": "1", "id": "a", "function": {"name": "read", "arguments": "{}"}}]}

    assert calls(decoded(delta, CALLS)) == {"a": ("read", "{}")}


@given(st.data())
def test_calls_cut_into_pieces_and_interleaved_come_out_whole(data: st.DataObject) -> None:
    """Whatever the order of their pieces, each call has its own arguments in the end."""
    wanted = data.draw(st.lists(st.dictionaries(st.text(max_size=3), st.integers()), min_size=1, max_size=4))
    with_ids = data.draw(st.booleans())
    deltas: list[list[dict[str, Any]]] = []
    for index, input in enumerate(wanted):
        raw = json.dumps(input)
        at = data.draw(st.integers(0, len(raw)))
        first = call_delta(index, f"id{index}" if with_ids else None, f"tool{index}", raw[:at])
        deltas.append([first, *(call_delta(index, arguments=character) for character in raw[at:])])
    order = data.draw(st.permutations([index for index, pieces in enumerate(deltas) for _ in pieces]))

    chunks = decoded(*(deltas[index].pop(0) for index in order), CALLS)

    assert sorted((name, json.loads(raw)) for name, raw in calls(chunks).values()) == [
        (f"tool{index}", input) for index, input in enumerate(wanted)
    ]


# --- the end


@pytest.mark.parametrize(
    ("sent", "means"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content-filter"),
        ("tool_calls", "unknown"),  # without a call there is nothing to wait for
        ("end_turn", "stop"),
        ("made up", "unknown"),
    ],
)
def test_finish_reasons(sent: str, means: FinishReason) -> None:
    assert decoded({"choices": [{"delta": {"content": "a"}, "finish_reason": sent}]})[-1] == Finished(
        reason=means, tokens=NO_TOKENS
    )


@pytest.mark.parametrize("sent", ["stop", "eos", "made up"])
def test_calls_make_it_tool_calls_whatever_the_server_says(sent: str) -> None:
    last = decoded(call_delta(0, "a", "read", "{}"), {"choices": [{"delta": {}, "finish_reason": sent}]})[-1]

    assert isinstance(last, Finished)
    assert last.reason == "tool-calls"


def test_an_end_mark_without_a_reason_is_an_end_too() -> None:
    assert decoded({"content": "a"}, "[DONE]")[-1] == Finished(reason="unknown", tokens=NO_TOKENS)


def test_a_stream_without_reason_and_end_mark_was_cut() -> None:
    with pytest.raises(ProviderError, match="cut off") as failed:
        decoded({"content": "a"})

    assert failed.value.is_retryable


def test_input_is_counted_without_the_cache_and_output_without_reasoning() -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 800},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }
    stream = decoder(cost=CostConfig(input=2, output=10, cache_read=0.5))
    stream.feed(json.dumps(STOP))
    stream.feed(json.dumps({"choices": [], "usage": usage}))

    assert stream.finish() == [
        Finished(
            reason="stop",
            tokens=Tokens(total=1500, input=200, output=200, reasoning=300, cache=CacheTokens(read=800, write=0)),
            cost=(200 * 2 + 500 * 10 + 800 * 0.5) / 1_000_000,
        )
    ]


def test_of_usage_that_comes_with_every_piece_the_last_counts() -> None:
    pieces = [
        {"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 7, "completion_tokens": n}}
        for n in (1, 2, 3)
    ]
    last = decoded(*pieces, STOP)[-1]

    assert isinstance(last, Finished)
    assert (last.tokens.total, last.tokens.input, last.tokens.output) == (10, 7, 3)


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None}, {"prompt_tokens": -5, "completion_tokens": 1e300}])
def test_usage_that_makes_no_sense_counts_nothing(usage: dict[str, Any]) -> None:
    last = decoded({"choices": [], "usage": usage}, STOP)[-1]

    assert isinstance(last, Finished)
    assert last.tokens == Tokens(total=0, input=0, output=0, reasoning=0, cache=CacheTokens(read=0, write=0))


def test_reasoning_tokens_of_a_server_that_counts_them_apart_do_not_make_output_negative() -> None:
    last = decoded(
        {"choices": [], "usage": {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 9}}}, STOP
    )[-1]

    assert isinstance(last, Finished)
    assert (last.tokens.output, last.tokens.reasoning) == (0, 5)


# --- trouble


def test_usage_that_says_nothing_replaces_none_that_said_something() -> None:
    for nothing in ({}, {"prompt_tokens": 0, "completion_tokens": 0}, [], "none"):
        tokens = count_of({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}, {"usage": nothing})
        assert (tokens.input, tokens.output) == (5, 7)


def count_of(*pieces: dict[str, Any]) -> Tokens:
    finished = decoded({"content": "a"}, *pieces, {"choices": [{"finish_reason": "stop"}]})[-1]
    assert isinstance(finished, Finished)
    return finished.tokens


def test_arguments_of_calls_side_by_side_may_be_cut_in_the_middle_of_a_character() -> None:
    pieces: list[dict[str, Any] | str] = []
    for half in ('{"x": "\ud83d', '\ude00"}'):
        deltas = [call_delta(n, str(n), "bash" if half.startswith("{") else None, half) for n in (0, 1)]
        pieces.append({"tool_calls": [call for delta in deltas for call in delta["tool_calls"]]})
    found = calls(decoded(*pieces, STOP))

    assert found == {str(n): ("bash", '{"x": "\U0001f600"}') for n in (0, 1)}


def test_what_is_no_json_is_the_servers_fault_and_may_go_well_next_time() -> None:
    with pytest.raises(ProviderError, match="no chat completion") as failed:
        decoded('{"choices":[{"delta":{"content":"')

    assert failed.value.is_retryable


def test_a_finish_reason_error_is_an_error() -> None:
    with pytest.raises(ProviderError):
        decoded({"choices": [{"delta": {}, "finish_reason": "error"}]})


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "delta", "tool_calls", "error", "usage", "content", "function", "index", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_data_gives_chunks_or_a_provider_error(data: bytes) -> None:
    stream = decoder()
    try:
        stream.feed(data.decode("utf-8", "replace"))
        stream.finish()
    except ProviderError:
        pass


# --- what is asked

CONVERSATION = (
    UserTurn(text="hi"),
    AssistantTurn(text="", reasoning="hm", calls=(ToolCall(call_id="a", name="read", input={"x": "é"}),)),
    ToolOutput(call_id="a", name="read", output="content"),
)


def messages(*conversation: Any, system: tuple[str, ...] = (), **settings: Any) -> list[dict[str, Any]]:
    request = ModelRequest(model_id="m", system=system, conversation=conversation)
    return request_body(request, model(**settings))["messages"]


def test_the_conversation_in_openais_words() -> None:
    assert messages(*CONVERSATION, system=("Be kind.", "Be brief.")) == [
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "read", "arguments": '{"x":"é"}'}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "content"},
    ]


@pytest.mark.parametrize("interleaved", ["reasoning_details", True])
def test_reasoning_goes_back_to_models_that_want_it(interleaved: str | bool) -> None:
    field = interleaved if isinstance(interleaved, str) else "reasoning_content"

    assert messages(*CONVERSATION, interleaved=interleaved)[1][field] == "hm"


def test_an_answer_of_nothing_but_reasoning_is_left_out() -> None:
    assert messages(UserTurn(text="a"), AssistantTurn(reasoning="hm"), UserTurn(text="b")) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]


PICTURE = Attachment(mime="image/png", url="data:image/png;base64,AAAA", filename="a.png")
SEES = ModalitiesConfig(input=("text", "image", "pdf", "audio"))


def test_attachments_are_parts_for_models_that_can_take_them() -> None:
    pdf = Attachment(mime="application/pdf", url="data:application/pdf;base64,AAAA")
    sound = Attachment(mime="audio/wav", url="data:audio/wav;base64,AAAA")
    note = Attachment(mime="text/plain", url="data:text/plain;base64,aGVsbG8=", filename="n.txt")
    [message] = messages(UserTurn(text="look", attachments=(PICTURE, pdf, sound, note)), modalities=SEES)

    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": PICTURE.url}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": pdf.url}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "text", "text": "Content of n.txt:\nhello"},
    ]


def test_what_a_model_cannot_take_is_said_in_words() -> None:
    [message] = messages(UserTurn(text="", attachments=(PICTURE,)))

    assert [part["type"] for part in message["content"]] == ["text"]
    assert "a.png" in message["content"][0]["text"]


def test_what_tools_attach_follows_all_outputs() -> None:
    outputs = [
        ToolOutput(call_id=id, name="read", output="", attachments=(PICTURE,) if id == "a" else ()) for id in "ab"
    ]
    sent = messages(*outputs, UserTurn(text="and?"), modalities=SEES)

    assert [message["role"] for message in sent] == ["tool", "tool", "user", "user"]
    assert sent[2]["content"][1]["type"] == "image_url"


def test_tools_limits_and_options_are_sent() -> None:
    request = ModelRequest(
        model_id="real-name",
        conversation=(UserTurn(text="hi"),),
        tools=(ToolSpec("read", "Reads.", {"type": "object"}),),
        output_tokens_max=100,
        temperature=0.5,
        options={"reasoningEffort": "high", "model": "other", "messages": [], "stream": False},
    )
    body = request_body(request, model(options={"reasoningEffort": "low", "top_k": 3}))

    assert body == {
        "model": "real-name",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": "high",
        "top_k": 3,
        "max_tokens": 100,
        "temperature": 0.5,
        "tools": [
            {
                "type": "function",
                "function": {"name": "read", "description": "Reads.", "parameters": {"type": "object"}},
            }
        ],
    }


def test_nothing_is_said_about_tools_and_usage_unless_wanted() -> None:
    body = request_body(ModelRequest(model_id="m", conversation=()), model(), include_usage=False)

    assert body.keys() == {"model", "messages", "stream"}


def test_a_limit_under_its_newer_name_replaces_the_older() -> None:
    request = ModelRequest(model_id="m", conversation=(), output_tokens_max=9, options={"max_completion_tokens": 5})

    assert "max_tokens" not in request_body(request, model())
