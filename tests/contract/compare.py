"""What differs between two recordings of the contract script. Knows nothing of the reasons: those are in differences.toml.

Compared are, scenario by scenario:

- **answers**: status, media type, and the JSON value, recursively. What cannot be equal is given one name first: ids,
  times, hashes, slugs, ports, and the places in which each server works. Lists of things that have a name are compared by
  name, all others by index.
- **events**: their order, where an order is defined (see `tracks`), and their shape: which fields an event of a kind has
  always, sometimes or never, and of which type. Values are compared in answers, since all that events say is read there.
- **the two streams**: `/global/event` carries what `/event` does, in the same order, in an envelope.
"""

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.contract.both import Recording

_ID = re.compile(r"\b(ses|msg|prt|evt|per|que|pty|call|chatcmpl|tool)_[0-9A-Za-z_]{6,}")
_ULID = re.compile(r"^[0-9A-HJKMNP-TV-Z]{26}$")
_HASH = re.compile(r"\b[0-9a-f]{40}\b")
_ISO_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_MS_2020 = 1_577_836_800_000
_NOT_CALLED = (
    "/event",
    "/global/event",
    "/global/upgrade",
)  # subscribed to all the time; would change the stock program
_BACKGROUND = ("session.updated", "session.diff")
_KEYS = ("id", "name", "path", "file")
_RULES = ({"permission", "pattern", "action"}, {"action", "resource", "effect"})


@dataclass(frozen=True, order=True)
class Difference:
    """`where` is a scenario, a call or a track, and the place in it; `what` reads from the stock server to Holdfast."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def compare(stock: Recording, ours: Recording) -> list[Difference]:
    differences = [*_answers(stock, ours), *_events(stock, ours)]
    for name, recording in (("stock", stock), ("holdfast", ours)):
        differences += [Difference(f"streams/{name}", what) for what in _streams_disagree(recording)]
    return sorted(set(differences))


def routes_not_called(stock: Recording, ours: Recording) -> list[str]:
    """Routes that both servers document, and that no scenario called."""
    theirs = {(method, _any(path)) for method, path in stock.trace["routes"]}
    called = {(call["method"], call["path"]) for call in ours.trace["calls"]}
    return [
        f"{method} {path}"
        for method, path in ours.trace["routes"]
        if (method, _any(path)) in theirs
        and path not in _NOT_CALLED
        and not any(method == other and re.fullmatch(_any(path), place) for other, place in called)
    ]


def _any(path: str) -> str:
    """The expression for every path of a route."""
    return re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))


# --- answers


def _answers(stock: Recording, ours: Recording) -> Iterator[Difference]:
    theirs, mine = _by_name(stock), _by_name(ours)
    for name in theirs.keys() | mine.keys():
        if name not in theirs or name not in mine:
            yield Difference(name, f"only asked of {'stock' if name in theirs else 'holdfast'}")
            continue
        a, b = theirs[name], mine[name]
        for field in ("status", "type", "next"):
            if a[field] != b[field]:
                yield Difference(f"{name}.{field}", f"{a[field]!r} → {b[field]!r}")
        if a["status"] == b["status"]:
            yield from _values(f"{name}.body", neutral(a["body"], stock.places), neutral(b["body"], ours.places))


def _by_name(recording: Recording) -> dict[str, dict[str, Any]]:
    named: dict[str, dict[str, Any]] = {}
    for call in recording.trace["calls"]:
        name = f"{call['scenario']}/{call['name']}"
        assert name not in named, f"two calls have the name {name}"
        named[name] = call
    return named


def neutral(value: Any, places: dict[str, str], key: str = "") -> Any:
    """The value with what differs from run to run replaced by its kind."""
    match value:
        case dict():
            return {_neutral_text(name, places, ""): neutral(item, places, name) for name, item in value.items()}
        case list():
            return [neutral(item, places, key) for item in value]
        case str():
            return _neutral_text(value, places, key)
        case bool() | None:
            return value
        case int() if key == "pid":
            return "<pid>"
        case int() | float() if value > _MS_2020:
            return "<time>"
        case _:
            return value


def _neutral_text(text: str, places: dict[str, str], key: str) -> str:
    if key in ("slug", "ticket") or (key == "callID" and _ULID.match(text)):
        return f"<{key}>"
    for place, name in sorted(places.items(), key=lambda item: -len(item[0])):
        text = text.replace(place, name)
    text = _ID.sub(lambda found: f"<{found[1]}>", text)
    return _ISO_TIME.sub("<time>", _HASH.sub("<hash>", text))


def _values(where: str, a: Any, b: Any) -> Iterator[Difference]:
    if _type(a) != _type(b):
        yield Difference(where, f"type: {_short(a)} → {_short(b)}")
    elif isinstance(a, dict):
        for key in a.keys() | b.keys():
            place = f"{where}.{key}"
            if key not in b:
                yield Difference(place, f"missing: {_short(a[key])}")
            elif key not in a:
                yield Difference(place, f"added: {_short(b[key])}")
            else:
                yield from _values(place, a[key], b[key])
    elif isinstance(a, list):
        yield from _lists(where, a, b)
    elif a != b:
        yield Difference(where, f"value: {_short(a)} → {_short(b)}")


def _lists(where: str, a: list[Any], b: list[Any]) -> Iterator[Difference]:
    if _are_rules(a) and _are_rules(b):
        yield from _values(where, _by_subject(a), _by_subject(b))
        return
    if _are_words(a) and _are_words(b):
        yield from _values(where, dict.fromkeys(a, ""), dict.fromkeys(b, ""))
        return
    key = next((key for key in _KEYS if _names(a, key) and _names(b, key)), None)
    if key is not None:
        yield from _values(where, {item[key]: item for item in a}, {item[key]: item for item in b})
        if [item[key] for item in a] != [item[key] for item in b] and _names(a, key) == _names(b, key):
            yield Difference(where, "order of the list")
        return
    for i, (one, other) in enumerate(zip(a, b, strict=False)):
        yield from _values(f"{where}[{i}]", one, other)
    for i in range(len(b), len(a)):
        yield Difference(f"{where}[{i}]", f"missing: {_short(a[i])}")
    for i in range(len(a), len(b)):
        yield Difference(f"{where}[{i}]", f"added: {_short(b[i])}")


def _are_rules(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and item.keys() in _RULES for item in items)


def _by_subject(rules: list[dict[str, str]]) -> dict[str, str]:
    """The last rule for a subject counts."""
    subjects = [[rule[key] for key in sorted(rule.keys() - {"effect"})] for rule in rules]
    if rules and "permission" in rules[0]:
        subjects = [[rule["permission"], rule["pattern"]] for rule in rules]
    return {
        " ".join(subject): rule.get("effect", rule["action"]) for subject, rule in zip(subjects, rules, strict=True)
    }


def _are_words(items: list[Any]) -> bool:
    return len(items) > 0 and all(isinstance(item, str) for item in items) and len(set(items)) == len(items)


def _names(items: list[Any], key: str) -> set[str]:
    """The names of the items, if all have one of their own; else none."""
    names = [item[key] for item in items if isinstance(item, dict) and isinstance(item.get(key), str)]
    return set(names) if len(set(names)) == len(items) and not any(name.startswith("<") for name in names) else set()


def _type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "…"


# --- events


def _events(stock: Recording, ours: Recording) -> Iterator[Difference]:
    yield from _types(stock, ours)
    theirs, mine = tracks(stock), tracks(ours)
    for name in theirs.keys() | mine.keys():
        a, b = theirs.get(name, []), mine.get(name, [])
        for op, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            if op != "equal":
                yield Difference(name, f"order: {a[a0:a1]} → {b[b0:b1]} after {a[a0 - 1] if a0 else 'the beginning'}")
    yield from _shapes(stock, ours)


def _types(stock: Recording, ours: Recording) -> Iterator[Difference]:
    """Kinds of events that only one of them has at all."""
    a, b = ({seen["event"]["type"] for seen in recording.trace["events"]} for recording in (stock, ours))
    for type_ in a ^ b:
        yield Difference(f"events/{type_}", "never sent" if type_ in a else "added")


def tracks(recording: Recording) -> dict[str, list[str]]:
    """The order of events where it is defined: what happened to each session, each message and each part, one after the
    other. A tool's asks stand on the track of its part too. Between two parts of a message there is no defined order: a
    stock server runs a tool while the text before it is still open, and is a race with itself. The same holds for what it
    does in the background (`_BACKGROUND`, and the summary of a prompt): only that it happened is compared.

    Names are `SCENARIO/session N/message M/part K`, numbered as they appeared. Repetitions are one."""
    order: dict[str, list[str]] = defaultdict(list)
    background: dict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    counts: dict[str, int] = defaultdict(int)
    calls: dict[str, str] = {}

    def name_of(id_: str, above: str, kind: str) -> str:
        if id_ not in names:
            counts[f"{above}/{kind}"] += 1
            names[id_] = f"{above}/{kind} {counts[f'{above}/{kind}']}"
        return names[id_]

    statuses: dict[str, str] = {}

    def note(track: str, label: str) -> None:
        if label.startswith("session.status "):  # a stock server says again and again that it is busy
            if statuses.get(track) == label:
                return
            statuses[track] = label
        if not order[track] or order[track][-1] != label:
            order[track].append(label)

    for seen in recording.trace["events"]:
        event = seen["event"]
        type_, properties = event["type"], event["properties"]
        session_id = properties.get("sessionID")
        if session_id is None or type_.startswith("turn."):
            continue
        session = name_of(session_id, seen["scenario"], "session")
        match type_:
            case "message.updated":
                info = properties["info"]
                is_new = info["id"] not in names
                message = name_of(info["id"], session, "message")
                label = _message_label(info)
                if is_new:
                    note(session, label)
                if info["role"] == "user" and not is_new:
                    background[session].add("message.updated user again")
                else:
                    note(message, label)
                    if "completed" in info["time"]:
                        note(session, label)
            case "message.part.updated":
                part = properties["part"]
                message = name_of(part["messageID"], session, "message")
                if part["id"] not in names:
                    note(message, f"+{part['type']}")
                name = name_of(part["id"], message, "part")
                note(name, _part_label(part))
                if "callID" in part:
                    calls[part["callID"]] = name
            case "message.part.delta":
                name = names.get(properties["partID"])
                if name is None:
                    name = name_of(properties["partID"], f"{session}/unknown", "part")
                note(name, f"delta {properties['field']}")
            case "message.part.removed":
                note(names.get(properties["messageID"], session), "part removed")
            case "message.removed":
                note(session, "message.removed")
            case _ if type_ in _BACKGROUND:
                background[session].add(type_)
            case _:
                label = _session_label(type_, properties)
                note(session, label)
                call = properties.get("tool", {}).get("callID")
                if call in calls:
                    note(calls[call], label)
    for session, labels in background.items():
        order[f"{session}/background"] = sorted(labels)
    return dict(order)


def _message_label(info: dict[str, Any]) -> str:
    done = " completed" if "completed" in info["time"] else ""
    error = f" {info['error']['name']}" if "error" in info else ""
    return f"message {info['role']}{done}{error} {info.get('finish', '')}".rstrip()


def _part_label(part: dict[str, Any]) -> str:
    if part["type"] == "tool":
        return f"{part['tool']} {part['state']['status']}"
    return f"{part['type']}{' closed' if 'end' in part.get('time', {}) else ''}"


def _session_label(type_: str, properties: dict[str, Any]) -> str:
    match type_:
        case "session.status":
            return f"{type_} {properties['status']['type']}"
        case "session.error":
            return f"{type_} {properties['error']['name']}"
        case "permission.replied":
            return f"{type_} {properties['reply']}"
        case _:
            return type_


def _shapes(stock: Recording, ours: Recording) -> Iterator[Difference]:
    theirs, mine = shapes(stock), shapes(ours)
    for kind in theirs.keys() & mine.keys():
        a, b = theirs[kind], mine[kind]
        for place in a.keys() | b.keys():
            if a.get(place) != b.get(place):
                yield Difference(f"events/{kind}{place}", f"shape: {a.get(place, 'never')} → {b.get(place, 'never')}")


def shapes(recording: Recording) -> dict[str, dict[str, str]]:
    """By kind of event, by place in it: the types of the values there, and whether it is always there."""
    events: dict[str, list[dict[str, set[str]]]] = defaultdict(list)
    for seen in recording.trace["events"]:
        event = seen["event"]
        found: dict[str, set[str]] = defaultdict(set)
        _collect("", neutral(event, recording.places), found)
        events[_kind(event)].append(found)
    return {kind: _merged(found) for kind, found in events.items()}


def _merged(events: Iterable[dict[str, set[str]]]) -> dict[str, str]:
    events = list(events)
    places = {place for event in events for place in event}
    merged: dict[str, str] = {}
    for place in places:
        types = sorted({type_ for event in events for type_ in event.get(place, ())})
        above = place.rpartition(".")[0]
        always = all(place in event for event in events if not above or above in event)
        merged[place] = " or ".join(types) + ("" if always else ", sometimes")
    return merged


def _collect(place: str, value: Any, found: dict[str, set[str]]) -> None:
    found[place].add(_type(value))
    if isinstance(value, dict):
        for key, item in value.items():
            _collect(f"{place}.{key}", item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(f"{place}[]", item, found)


def _kind(event: dict[str, Any]) -> str:
    properties = event["properties"]
    match event["type"]:
        case "message.updated":
            return f"message.updated {properties['info']['role']}"
        case "message.part.updated":
            return f"message.part.updated {_part_label(properties['part'])}"
        case "session.error":
            return f"session.error {properties['error']['name']}"
        case "session.status":
            return f"session.status {properties['status']['type']}"
        case type_:
            return type_


# --- the two streams


def _streams_disagree(recording: Recording) -> Iterator[str]:
    """`/global/event` against `/event` of the same server."""
    own = [seen["event"] for seen in recording.trace["events"] if "sessionID" in seen["event"]["properties"]]
    wrapped = [seen["event"] for seen in recording.trace["globalEvents"]]
    unwrapped = [e["payload"] for e in wrapped if "sessionID" in e["payload"].get("properties", {})]
    if own != unwrapped:
        yield "the same events in the same order are on both streams: not so"
    for envelope in wrapped:
        keys = sorted(envelope.keys() - {"payload"})
        if "sessionID" in envelope["payload"].get("properties", {}) and keys != ["directory", "project"]:
            yield f"an envelope with {keys}"
    if any(envelope["payload"]["type"] == "sync" for envelope in wrapped):
        yield "sync frames"
