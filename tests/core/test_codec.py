"""Events ever released always load: each line of tests/golden/events/<tag>.jsonl is a record as it was once written.

A golden file is never edited. A new version of a shape gets a new file, and its upcaster makes the old one load.
"""

from pathlib import Path

import pytest

from holdfast.core import codec
from holdfast.core.errors import StorageError
from holdfast.core.events import EVENT_TYPES, PartDelta
from holdfast.core.fold import Fold

GOLDEN = Path(__file__).parent.parent / "golden" / "events"
FILES = sorted(GOLDEN.glob("*.jsonl"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_event_ever_released_still_loads(file: Path):
    for line in file.read_bytes().splitlines():
        event_id, event = codec.decode(file.stem, line)
        assert event_id.startswith("evt_")
        assert codec.type_of(file.stem) == event.type


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.type)
def test_the_present_shape_of_every_event_is_written_as_its_golden_file_says(cls: type):
    tag = f"{cls.type}.{cls.version}"
    for line in (GOLDEN / f"{tag}.jsonl").read_bytes().splitlines():
        event_id, event = codec.decode(tag, line)
        assert line == codec.encode(event, event_id)
        assert tag == codec.tag_of(event)


def test_an_event_of_a_newer_version_is_refused_with_what_to_do():
    with pytest.raises(StorageError, match=r"message\.updated\.99") as raised:
        codec.decode("message.updated.99", b"{}")
    assert "newer" in (raised.value.hint or "")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"id":"evt_1"}', b'{"id":"evt_1","properties":{}}', b"\xff\xfe", b"[" * 5000]
)
def test_damaged_bytes_are_a_storage_error_not_a_crash(data: bytes):
    with pytest.raises(StorageError):
        codec.decode("message.part.delta.1", data)


def test_fields_that_a_newer_server_wrote_are_ignored():
    properties = b'{"sessionID":"ses_1","messageID":"m","partID":"p","field":"text","delta":"d","new":1}'
    _, event = codec.decode("message.part.delta.1", b'{"id":"evt_1","type":"x","properties":' + properties + b"}")
    assert event == PartDelta(session_id="ses_1", message_id="m", part_id="p", field="text", delta="d")


def test_golden_parts_can_be_folded_in_the_order_of_their_events():
    fold = Fold()
    for tag in ("session.created.1", "message.updated.1", "message.part.updated.1"):
        line = (GOLDEN / f"{tag}.jsonl").read_bytes().splitlines()[-1]
        fold.apply(codec.decode(tag, line)[1])
    assert len(fold.messages()) == 1
