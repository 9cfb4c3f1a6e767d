"""What happens while the server is killed. A scenario is one function: it talks to the server as a client that repeats
what was not answered, and looks at the outcome. When, how often and how the server dies is the round's business.

A new scenario is a function and a line in SCENARIOS; what must hold of every session is checked for it (`checks`).
"""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.codec import to_json
from holdfast.core.events import PartDelta, SessionCompacted, TurnEnded, TurnExtended, TurnOutcome, TurnRequested
from holdfast.core.messages import AssistantMessage, ToolCompleted, ToolError, ToolPart
from holdfast.server.aisdk.ui_messages import fold
from tests.kill.arena import Arena
from tests.kill.checks import (
    answer_reasoning,
    answer_text,
    answer_tools,
    check_session,
    children_die_with_the_server,
    is_quiet,
    same,
)

ROUND_SECONDS_MAX = 120
STOP_SHARE = 0.1
"""How many of the ends are SIGTERM, in good order, instead of SIGKILL."""


@dataclass
class Round:
    """One scenario, played on sessions of its own. `random` is seeded: sizes, and the moments of death, come from it."""

    arena: Arena
    random: random.Random
    sessions: list[str] = field(default_factory=list)
    prompts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def session(self) -> str:
        return self.sessions[0]

    async def prompt(self, session: str, text: str, **more: Any) -> str:
        """Ask, however often the server dies, in one of the two ways there are; answers the prompt's id when the turn is
        over."""
        id = self.arena.new_message_id()
        self.prompts[session].append(id)
        body = {"messageID": id, "parts": [{"type": "text", "text": text}], **more}
        if self.random.random() < 0.5:
            answer = await self.arena.call("POST", f"/session/{session}/message", body)
            same(
                (answer["info"]["role"], answer["info"].get("parentID") in self.asked(id, session)), ("assistant", True)
            )
            same("completed" in answer["info"]["time"], True)
        else:
            await self.arena.call("POST", f"/session/{session}/prompt_async", body)
        await self.arena.watcher.until(lambda: self._ended(session, id))
        return id

    def asked(self, prompt: str, session: str | None = None) -> list[str]:
        """The prompt, and those with which its turn was extended."""
        events = self.arena.events[session or self.session]
        return [prompt, *(e.prompt_id for e in events if isinstance(e, TurnExtended) and e.message_id == prompt)]

    def _ended(self, session: str, prompt: str) -> bool:
        return bool(self.outcomes(prompt, session))

    def outcomes(self, prompt: str, session: str | None = None) -> list[TurnOutcome]:
        """How the turn ended: one outcome, once it has."""
        events = self.arena.events[session or self.session]
        return [event.outcome for event in events if isinstance(event, TurnEnded) and event.message_id == prompt]

    def text(self, prompt: str, session: str | None = None) -> str:
        return answer_text(self.arena, session or self.session, prompt)

    def seen(self) -> int:
        """How many events of the round's sessions the subscriber has seen."""
        return sum(len(self.arena.events[session]) for session in self.sessions)


@dataclass(frozen=True)
class Scenario:
    """`events` is about how many events it makes: the server is killed after a random number of them."""

    play: Callable[[Round], Coroutine[Any, Any, None]]
    events: int
    sessions: int = 1


def tokens(count: int) -> str:
    return "".join(f"tok{i} " for i in range(count))


# --- the scenarios ----------------------------------------------------------------------------------------------


async def text(round: Round) -> None:
    """A model that writes at a reading pace."""
    count = round.random.randint(20, 80)
    prompt = await round.prompt(round.session, f"[[tokens={count}]] [[delay=3]]")
    same(round.text(prompt), tokens(count))


async def burst(round: Round) -> None:
    """A model that writes as fast as it can: many events in one commit."""
    prompt = await round.prompt(round.session, "[[tokens=1500]]")
    same(round.text(prompt), tokens(1500))


async def reasoning(round: Round) -> None:
    """What was thought is thought once, wherever it was cut off; so is what is said."""
    prompt = await round.prompt(round.session, "[[reason=40]] [[tokens=15]] [[delay=3]]")
    thoughts = answer_reasoning(round.arena, round.session, prompt)
    same(round.text(prompt), tokens(15))
    same(thoughts, ["".join(f"think{i} " for i in range(40))])


async def tool(round: Round) -> None:
    """A command that runs for a while, with a child that outlives its group, its terminal or polite signals."""
    session = round.session
    log = round.arena.work / f"{session}.ran"
    child = round.random.choice(
        ["sleep 600", "setsid sleep 600", "nohup sleep 600", "(trap '' TERM HUP INT; exec sleep 600)"]
    )
    command = (
        f"export KILL_TEST={session}; echo ran >> {log}; {child} & for i in 1 2 3 4 5 6 7 8; do echo line $i; "
        "sleep 0.03; done; kill -9 $!; wait; echo over"
    )
    prompt = await round.prompt(session, f'[[tool=bash {{"command":"{command}"}}]] [[tokens=10]] [[delay=3]]')
    _check_tools(round, prompt, ran=len(log.read_text().splitlines()) if log.exists() else 0)
    same(round.text(prompt), "Calling. " + tokens(10))


async def parallel_tools(round: Round) -> None:
    session = round.session
    log = round.arena.work / f"{session}.ran"
    command = f"export KILL_TEST={session}; echo ran >> {log}; sleep 0.2; echo over"
    calls = "".join(f'[[tool=bash {{"command":"{command} {i}"}}]]' for i in range(3))
    prompt = await round.prompt(session, f"{calls} [[tokens=10]] [[delay=3]]")
    _check_tools(round, prompt, ran=len(log.read_text().splitlines()) if log.exists() else 0, calls=3)
    same(round.text(prompt), "Calling. " + tokens(10))


def _check_tools(round: Round, prompt: str, *, ran: int, calls: int = 1) -> None:
    """Calls that the model finished ran at most once; one whose outcome nobody knows says so."""
    states = [part.state for part in _calls(round, prompt)]
    completed = [state for state in states if isinstance(state, ToolCompleted)]
    lost = [state for state in states if isinstance(state, ToolError) and _says(state, "interrupted")]
    same((len(states), len(completed) + len(lost)), (calls, calls))
    same(len(completed) <= ran <= calls, True)
    same([state.output for state in completed if "over" not in state.output], [])
    # The second is what a server says that was stopped in good order, and ended the tool itself.
    says_so = ("its outcome is unknown", "it was ended")
    same([state.error for state in lost if not any(words in state.error for words in says_so)], [])


async def files(round: Round) -> None:
    """A file that is written and edited has what it is to have, once, however often the server died over it."""
    session, arena = round.session, round.arena
    file = arena.work / f"{session}.txt"
    lines = "".join(f"line {i}\n" for i in range(round.random.choice([3, 3000])))
    write = json.dumps({"filePath": str(file), "content": f"alpha\n{lines}"})
    edit = json.dumps({"filePath": str(file), "oldString": "alpha", "newString": "alpha alpha"})
    for call in (f"write {write}", f"edit {edit}"):
        prompt = await round.prompt(session, f"[[tool={call}]] [[tokens=5]]")
        same([part.state for part in _calls(round, prompt) if not isinstance(part.state, ToolCompleted)], [])
        same(round.text(prompt), "Calling. " + tokens(5))
    same(file.read_text(), f"alpha alpha\n{lines}")
    same([path.name for path in arena.work.iterdir() if session in path.name], [file.name])


def _calls(round: Round, prompt: str) -> list[ToolPart]:
    """The calls that the model finished."""
    calls = answer_tools(round.arena, round.session, prompt)
    return [call for call in calls if not (isinstance(call.state, ToolError) and _says(call.state, "incomplete"))]


def _says(state: ToolError, mark: str) -> bool:
    return bool((state.metadata or {}).get(mark))


async def subagent(round: Round) -> None:
    """A task that another agent does in a session of its own: its turn ends once too, and its answer arrives."""
    session, arena = round.session, round.arena
    task = {"description": "count", "prompt": "[[tokens=30]] [[delay=3]]", "subagent_type": "general"}
    prompt = await round.prompt(session, f"[[tool=task {json.dumps(task)}]] [[tokens=10]] [[delay=3]]")
    same(round.text(prompt), "Calling. " + tokens(10))
    children = [id for id, fold in arena.folds.items() if fold.exists and fold.session.parent_id == session]
    same(len(children), 1)
    for child in children:
        prompts = [event.message_id for event in arena.events[child] if isinstance(event, TurnRequested)]
        await arena.watcher.until(lambda child=child, prompts=prompts: is_quiet(arena, child, prompts))
        await check_session(arena, child, prompts)
    outputs = [call.state.output for call in _calls(round, prompt) if isinstance(call.state, ToolCompleted)]
    same([tokens(30).strip() in output for output in outputs], [True])


async def permission(round: Round) -> None:
    """The third of three equal calls is asked for. The request waits over restarts, and its answer is not lost."""
    session, arena = round.session, round.arena
    log = arena.work / f"{session}.ran"
    command = f"export KILL_TEST={session}; echo ran >> {log}; sleep 0.1; echo over"
    call = f'[[tool=bash {{"command":"{command}"}}]]'
    turn = asyncio.ensure_future(round.prompt(session, f"{call * 3} [[tokens=10]] [[delay=3]]"))

    def pending() -> list[str]:
        return [entry.request.id for entry in arena.folds[session].permissions() if entry.reply is None]

    prompt = await _answering(
        round,
        turn,
        pending,
        lambda id: arena.call("POST", f"/permission/{id}/reply", {"reply": "once"}, expected=(200, 404)),
    )
    _check_tools(round, prompt, ran=len(log.read_text().splitlines()) if log.exists() else 0, calls=3)
    same(round.text(prompt), "Calling. " + tokens(10))


async def question(round: Round) -> None:
    """The model's question to the user waits over restarts, and its answer is not lost."""
    session, arena = round.session, round.arena
    options = [{"label": label, "description": label} for label in ("Ebb", "Flow")]
    asks = json.dumps({"questions": [{"question": "Which?", "header": "Tide", "options": options}]})
    turn = asyncio.ensure_future(round.prompt(session, f"[[tool=question {asks}]] [[tokens=10]] [[delay=3]]"))

    def pending() -> list[str]:
        entries = arena.folds[session].questions()
        return [entry.request.id for entry in entries if entry.answers is None and not entry.rejected]

    prompt = await _answering(
        round,
        turn,
        pending,
        lambda id: arena.call("POST", f"/question/{id}/reply", {"answers": [["Flow"]]}, expected=(200, 404)),
    )
    same(
        ["Flow" in part.state.output for part in _calls(round, prompt) if isinstance(part.state, ToolCompleted)], [True]
    )
    same(round.text(prompt), "Calling. " + tokens(10))


async def _answering(
    round: Round,
    turn: "asyncio.Future[str]",
    pending: Callable[[], list[str]],
    answer: Callable[[str], Coroutine[Any, Any, Any]],
) -> str:
    """Answer whatever waits for the user until the turn is over; answers its prompt. (404: the answer before the server died
    had arrived, and the turn is over meanwhile.)"""
    arena = round.arena
    try:
        while not turn.done():
            asked = asyncio.ensure_future(arena.watcher.until(lambda: bool(pending())))
            await asyncio.wait((turn, asked), return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            for id in pending():
                await answer(id)
                await arena.watcher.until(lambda id=id: id not in pending())
        return await turn
    finally:
        turn.cancel()


async def compaction(round: Round) -> None:
    """A conversation that does not fit its model any more is summarised once, and the prompt answered after that."""
    session, arena = round.session, round.arena
    small = {"model": {"providerID": "fake", "modelID": "fake-small"}}
    first = await round.prompt(session, "[[tokens=10]]", **small)
    same(round.text(first), tokens(10))
    second = await round.prompt(session, "[[tokens=25]] [[delay=3]]", **small)
    summaries = [
        m.info for m in arena.folds[session].messages() if isinstance(m.info, AssistantMessage) and m.info.summary
    ]
    same([info.parent_id in round.asked(second) for info in summaries], [True])
    same(sum(isinstance(event, SessionCompacted) for event in arena.events[session]), 1)
    same(round.text(round.asked(second)[-1]), tokens(25))


async def waits(round: Round) -> None:
    """A pause before the next try outlives the server, and what was said before it is said once. (Few events, so that a death
    is often in the pause.)"""
    prompt = await round.prompt(round.session, f"[[tokens=5]] [[error=2]] [[times=1]] {round.session}")
    same(round.text(prompt), tokens(5))


async def chat(round: Round) -> None:
    """A page of the AI SDK: its message is asked once, and what it makes of the chunks is what the history has."""
    session, arena = round.session, round.arena
    id = arena.new_message_id()
    round.prompts[session].append(id)
    text = '[[reason=8]] [[tool=bash {"command":"echo over"}]] [[tokens=30]] [[delay=3]]'
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    told = await arena.call("POST", "/v1/chat", {"id": session, "messages": [message]}, expected=(201,))
    chunks = await arena.read_stream(told["streamUrl"])
    shown = await arena.call("GET", f"/v1/chat/{session}/messages")
    same(json.loads(to_json(fold(id, chunks))), shown[-1])
    same("".join(part["text"] for part in shown[-1]["parts"] if part["type"] == "text"), "Calling. " + tokens(30))
    await arena.watcher.until(lambda: bool(round.outcomes(id)))


async def queue(round: Round) -> None:
    """Prompts that came in while another was answered are answered too, in their order."""
    session = round.session
    counts = [round.random.randint(10, 30) for _ in range(3)]
    asked = [
        asyncio.ensure_future(round.prompt(session, f"[[tokens={n}]] [[delay=3]] {i}")) for i, n in enumerate(counts)
    ]
    prompts = await asyncio.gather(*asked)
    for prompt, count in zip(prompts, counts, strict=True):
        same(round.text(prompt), tokens(count))


async def messages(round: Round) -> None:
    """Messages that ask for no answer: what was acknowledged is there, and what was sent twice is there once."""
    session, arena = round.session, round.arena
    sent: list[tuple[str, str]] = []
    for i in range(40):
        id, text = arena.new_message_id(), f"message {i}"
        body = {"messageID": id, "noReply": True, "parts": [{"type": "text", "text": text}]}
        answer = await arena.call("POST", f"/session/{session}/message", body)
        same(answer["info"]["id"], id)
        sent.append((id, text))
    stored = await arena.call("GET", f"/session/{session}/message")
    same([(message["info"]["id"], *(part["text"] for part in message["parts"])) for message in stored], sent)
    await arena.watcher.until(lambda: len(arena.folds[session].messages()) == len(sent))


async def sessions(round: Round) -> None:
    """Several sessions at once."""
    asked = [round.prompt(session, "[[tokens=40]] [[delay=3]]") for session in round.sessions]
    prompts = await asyncio.gather(*asked)
    for session, prompt in zip(round.sessions, prompts, strict=True):
        same(round.text(prompt, session), tokens(40))


async def refused(round: Round) -> None:
    """A provider that refuses at first, and asks for a pause."""
    prompt = await round.prompt(
        round.session, f"[[tokens=20]] [[delay=3]] [[status=503]] [[times=2]] [[retryms=150]] {round.session}"
    )
    same(round.text(prompt), tokens(20))


async def cut(round: Round) -> None:
    """A provider whose connection breaks: the text goes on where it broke off."""
    prompt = await round.prompt(round.session, f"[[tokens=30]] [[delay=3]] [[cut=15]] [[times=1]] {round.session}")
    same(round.text(prompt), tokens(30))


async def abort(round: Round) -> None:
    """An abort that was answered is done, also if the server dies before it is; what was queued is answered. (An abort
    names no turn. One that had come in when the server died, and is made again, may so hit the next turn.)"""
    session, arena = round.session, round.arena
    path = f"/session/{session}/abort"
    hanging = asyncio.ensure_future(round.prompt(session, "[[tokens=90]] [[delay=3]] [[hang=10]]"))
    await arena.watcher.until(lambda: sum(isinstance(e, PartDelta) for e in arena.events[session]) >= 10)
    queued = asyncio.ensure_future(round.prompt(session, "[[tokens=8]] [[delay=3]]"))
    same(await arena.call("POST", path), True)
    aborted, answered = await asyncio.gather(hanging, queued)
    same(round.outcomes(aborted), ["aborted"])
    same(round.text(aborted), tokens(90)[: len(round.text(aborted))])
    if round.outcomes(answered) == ["aborted"] and arena.repeated[path]:
        return
    same(round.outcomes(answered), ["completed"])
    same(round.text(answered), tokens(8))


SCENARIOS = {
    "text": Scenario(text, events=70),
    "burst": Scenario(burst, events=1500),
    "reasoning": Scenario(reasoning, events=75),
    "tool": Scenario(tool, events=40),
    "parallel_tools": Scenario(parallel_tools, events=35),
    "files": Scenario(files, events=50),
    "subagent": Scenario(subagent, events=35),
    "permission": Scenario(permission, events=45),
    "question": Scenario(question, events=30),
    "compaction": Scenario(compaction, events=80),
    "waits": Scenario(waits, events=14),
    "chat": Scenario(chat, events=70),
    "queue": Scenario(queue, events=110),
    "messages": Scenario(messages, events=120),
    "sessions": Scenario(sessions, events=220, sessions=4),
    "refused": Scenario(refused, events=45),
    "cut": Scenario(cut, events=55),
    "abort": Scenario(abort, events=50),
}


# --- a round ----------------------------------------------------------------------------------------------------


async def play_round(arena: Arena, name: str, seed: str) -> None:
    """Play a scenario while the server dies once or twice at random moments, then check what must hold."""
    scenario = SCENARIOS[name]
    round = Round(arena, random.Random(seed))
    try:
        async with asyncio.timeout(ROUND_SECONDS_MAX):
            await _play(round, scenario)
    except TimeoutError:
        raise AssertionError(f"not over after {ROUND_SECONDS_MAX} s\n{_describe(round)}") from None


async def _play(round: Round, scenario: Scenario) -> None:
    arena = round.arena
    for _ in range(scenario.sessions):
        session = await arena.new_session()
        round.sessions.append(session)
        round.prompts[session] = []
    playing = asyncio.create_task(scenario.play(round))
    try:
        for _ in range(round.random.choices([1, 2], [3, 1])[0]):
            await _die_at_random(round, scenario, playing)
        await playing
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    for session, prompts in round.prompts.items():
        await arena.watcher.until(lambda s=session, p=prompts: is_quiet(arena, s, p))
        await check_session(arena, session, prompts)


def _describe(round: Round) -> str:
    """Where things stand, for whoever has to find out why."""
    arena = round.arena
    lines = [f"{arena.kills} kills so far; the server {'runs' if arena.process.running else 'is dead'}"]
    for session in round.sessions:
        fold = arena.folds[session]
        lines.append(f"{session}: {fold.status}, {fold.turns}")
        lines += [f"    {to_json(event).decode():.200}" for event in arena.events[session][-8:]]
    lines.append("end of the server's log:\n" + arena.log.read_text(errors="replace")[-3000:])
    return "\n".join(lines)


async def _die_at_random(round: Round, scenario: Scenario, playing: asyncio.Task[None]) -> None:
    """After a random number of events have been seen, and up to 20 ms later, so that it is not always just after one."""
    arena, rng = round.arena, round.random
    at = round.seen() + rng.randint(0, scenario.events)
    reached = asyncio.create_task(arena.watcher.until(lambda: round.seen() >= at))
    await asyncio.wait((reached, playing), return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    await asyncio.gather(reached, return_exceptions=True)
    await asyncio.sleep(rng.random() * 0.02)
    if rng.random() < STOP_SHARE:
        await arena.stop()
    else:
        await arena.kill()
    if rng.random() < 0.5:  # else the new server may be the one that ends them
        for session in round.sessions:
            await children_die_with_the_server(arena, session)
    await arena.start()
