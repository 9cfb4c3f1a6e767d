"""The index of texts: which part has which words. Changes in the transaction of the part's row; `verify` compares the two.

A row of `text_index` has the position of its part as rowid, and the part's words (`core.search`), which this module cuts itself:
the index only splits them at spaces. It keeps no copy of the text.
"""

import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from holdfast.core.messages import Part
from holdfast.core.search import Terms, text_of, words
from holdfast.core.store import Difference
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.rows import is_archived, title_folded, to_part, to_session

_CHECKSUM_BITS: Final = (1 << 64) - 1


# --- writing ----------------------------------------------------------------------------------------------------


def put(database: Database, position: int, known: Part | None, part: Part) -> None:
    """The part at this position is now this one; before, it was `known`."""
    text = text_of(part)
    was = text_of(known) if known is not None else None
    if text == was:
        return
    if was is not None:
        _remove(database, position)
    if text is not None:
        database.run("INSERT INTO text_index (rowid, words) VALUES (?, ?)", position, " ".join(words(text)))


def remove(database: Database, position: int, known: Part) -> None:
    """The part is gone."""
    if text_of(known) is not None:
        _remove(database, position)


def remove_session(database: Database, stream: int) -> None:
    """The session is gone; call it while its parts are still there."""
    database.run("DELETE FROM text_index WHERE rowid IN (SELECT position FROM part WHERE stream = ?)", stream)


def _remove(database: Database, position: int) -> None:
    database.run("DELETE FROM text_index WHERE rowid = ?", position)


def add_functions(database: Database) -> None:
    """What migrations ask of a row's JSON."""
    database.add_function("holdfast_words", _words_of_row)
    database.add_function("holdfast_title", _title_of_row)
    database.add_function("holdfast_archived", _is_archived_row)


def _title_of_row(data: bytes) -> str:
    return title_folded(to_session(data))


def _is_archived_row(data: bytes) -> bool:
    return is_archived(to_session(data))


def _words_of_row(data: bytes) -> str | None:
    text = text_of(to_part(data))
    return " ".join(words(text)) if text is not None else None


# --- finding ----------------------------------------------------------------------------------------------------


def condition(terms: Terms) -> tuple[str, list[str]]:
    """Of a row of `session`: SQL, and what to bind. Whatever the terms are, they are no operators: a title is looked into
    with instr, and a word that is given to the index consists of letters and digits and stands in quotes."""
    title = " AND ".join(["instr(title_folded, ?) > 0"] * len(terms.of_title))
    if not terms.of_text:
        return title, list(terms.of_title)
    expression = " AND ".join(f'"{" ".join(term)}" *' for term in terms.of_text)
    texts = (
        "session.stream IN (SELECT part.stream FROM text_index CROSS JOIN part ON part.position = text_index.rowid"
        " WHERE text_index MATCH ?)"
    )
    return f"({title} OR {texts})", [*terms.of_title, expression]


# --- verify -----------------------------------------------------------------------------------------------------


def differences(database: Database) -> Iterator[Difference]:
    """Parts whose words are not those that the index has, word by word and place by place (as checksums)."""
    indexed: dict[int, int] = {}
    of_word: tuple[str, int] = "", 0
    for word, position, place in database.each("SELECT term, doc, offset FROM text_word"):
        if word != of_word[0]:
            of_word = word, zlib.crc32(word.encode())
        indexed[position] = indexed.get(position, 0) + _weight(of_word[1], place)
    for (position,) in database.each("SELECT id FROM text_index_docsize"):
        indexed.setdefault(position, 0)  # a text without a word
    for position, session_id, id, data in database.each(
        "SELECT part.position, session_id, part.id, part.data FROM part JOIN stream ON stream.id = part.stream"
        " WHERE grows_after IS NULL"
    ):
        stored = indexed.pop(position, None)
        try:
            text = text_of(to_part(data))
        except msgspec.MsgspecError:
            continue  # that the row cannot be read is another difference
        expected = None if text is None else sum(_weight(zlib.crc32(w.encode()), n) for n, w in enumerate(words(text)))
        if stored != expected:
            yield Difference(
                session_id,
                f"words of part {id}",
                None if stored is None else f"checksum {stored & _CHECKSUM_BITS:x}",
                None if expected is None else f"checksum {expected & _CHECKSUM_BITS:x}",
            )
    for position in indexed:
        yield Difference("", f"words of part at {position}", "a row", None)


def _weight(word: int, place: int) -> int:
    """Another one for another word, or the same word at another place."""
    return (word + 1) * (2 * place + 1)
