from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.requests import ProducerHeaders, parse_append, parse_create, parse_read

NAMES = st.sampled_from(
    [
        *(b"content-type", b"stream-ttl", b"stream-expires-at", b"stream-closed", b"stream-seq", b"producer-id"),
        *(b"producer-epoch", b"producer-seq", b"stream-forked-from", b"stream-fork-offset", b"stream-fork-sub-offset"),
        *(b"if-match", b"if-none-match", b"stream-retention", b"stream-snapshot", b"last-event-id", b"accept-encoding"),
    ]
)
VALUES = st.binary(max_size=40) | st.sampled_from(
    [b"1", b"0", b"true", b"application/json", b"a/b", b"2030-01-01T00:00:00Z"]
)


@given(st.dictionaries(NAMES, VALUES), st.binary(max_size=60), st.booleans())
def test_any_headers_and_any_query_are_a_request_or_a_documented_error(
    headers: dict[bytes, bytes], query: bytes, has_body: bool
) -> None:
    for parse in (
        lambda: parse_create(headers),
        lambda: parse_append(headers, has_body=has_body),
        lambda: parse_read(headers, query),
    ):
        with suppress(RemoteProtocolError):
            parse()


@pytest.mark.parametrize("value", ["+1", "01", "1.0", "1e3", "-1", "", "x", "١", "99999999999"])
def test_a_ttl_is_plain_decimal_seconds(value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_create({b"stream-ttl": value.encode()})


@pytest.mark.parametrize(
    ("value", "ms"), [("2030-01-31T12:00:00Z", 1896091200000), ("2030-01-31t13:00:00.5+01:00", 1896091200500)]
)
def test_an_expiry_is_a_time_as_rfc_3339_writes_it(value: str, ms: int) -> None:
    request = parse_create({b"stream-expires-at": value.encode()})

    assert (request.expires_at, request.expires_at_ms) == (value, ms)


@pytest.mark.parametrize(
    "value", ["2030-01-31", "2030-13-01T00:00:00Z", "tomorrow", "2030-01-31T12:00:00", "1896091200"]
)
def test_what_is_not_a_time_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_create({b"stream-expires-at": value.encode()})


def test_a_stream_has_one_way_to_expire() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_create({b"stream-ttl": b"1", b"stream-expires-at": b"2030-01-31T12:00:00Z"})


@pytest.mark.parametrize(
    ("value", "closed"), [(b"true", True), (b"TRUE", True), (b"True", True), (b"1", False), (b"yes", False)]
)
def test_only_true_closes_in_any_letter_case(value: bytes, closed: bool) -> None:
    assert parse_create({b"stream-closed": value}).closed == closed


def test_the_producer_headers_go_together() -> None:
    whole = {
        b"content-type": b"a/b",
        b"producer-id": b"p",
        b"producer-epoch": b"3",
        b"producer-seq": b"9007199254740991",
    }
    assert parse_append(whole, has_body=True).producer == ProducerHeaders("p", 3, 2**53 - 1)
    for name in (b"producer-id", b"producer-epoch", b"producer-seq"):
        with pytest.raises(RemoteProtocolError):
            parse_append({key: value for key, value in whole.items() if key != name}, has_body=True)
    for name, value in [(b"producer-id", b""), (b"producer-epoch", b"-1"), (b"producer-seq", b"9007199254740992")]:
        with pytest.raises(RemoteProtocolError):
            parse_append({**whole, name: value}, has_body=True)


@pytest.mark.parametrize(
    "query",
    [
        b"offset=",
        b"offset=a",
        b"offset=1,2",
        b"offset=-1&offset=-1",
        b"offset=../x",
        b"offset=%00",
        b"live=sse",
        b"live=long-poll",
    ],
)
def test_an_offset_is_one_of_ours_and_a_live_read_needs_one(query: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_read({}, query)


def test_unknown_parameters_are_ignored() -> None:
    request = parse_read({}, b"x=1&live=later&offset=now&cursor=7")

    assert (request.offset, request.live, request.cursor) == ("now", None, "7")


def test_an_event_source_that_comes_back_goes_on_after_its_last_event() -> None:
    last = "0000000000000007_0000000000000000"

    assert parse_read({b"last-event-id": last.encode()}, b"live=sse&offset=-1").offset == last


@pytest.mark.parametrize(
    ("accepted", "gzip"),
    [
        (b"gzip", True),
        (b"br, GZIP;q=0.5", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000, br", False),
        (b"", False),
        (b"x-gzipped", False),
    ],
)
def test_an_answer_is_compressed_only_for_who_says_so(accepted: bytes, gzip: bool) -> None:
    assert parse_read({b"accept-encoding": accepted}, b"").gzip == gzip
