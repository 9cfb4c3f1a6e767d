"""What the database's index finds is what `core.search` says, for any text and any query."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.search import has_terms, terms_of, words
from holdfast.storage.sqlite import search
from holdfast.storage.sqlite.database import Database

PIECES = ["a", "ab", "b", "a_b", "a.b", "É", "e\u0301", "ß", "ss", "日", "本", "👍", "İ", "ǅ", "²", "ﬁ", "x" * 70, "ก"]
MARKS = [" ", "  ", "\t", "-", '"', "*", "(", ":", "^", "\0", "'", "OR", "NOT"]

texts = st.one_of(
    st.lists(st.sampled_from(PIECES + MARKS), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


@given(st.lists(texts, max_size=5), texts)
def test_the_index_finds_what_the_words_say(found_in: list[str], query: str) -> None:
    database = Database(Path(":memory:"))
    database.run(
        "CREATE VIRTUAL TABLE text_index USING fts5 (words, content='', contentless_delete=1, tokenize='ascii')"
    )
    database.run_script(
        "CREATE TABLE part (position INTEGER PRIMARY KEY, stream); CREATE TABLE session (stream, title_folded)"
    )
    for number, text in enumerate(found_in, start=1):
        database.run("INSERT INTO text_index (rowid, words) VALUES (?, ?)", number, " ".join(words(text)))
        database.run("INSERT INTO part VALUES (?, ?)", number, number)
        database.run("INSERT INTO session VALUES (?, '\n')", number)
    terms = terms_of(query)
    expected = [n for n, text in enumerate(found_in, start=1) if has_terms(words(text), terms)]
    if terms.of_title:
        condition, bindings = search.condition(terms)
        rows = database.all(f"SELECT stream FROM session WHERE {condition} ORDER BY stream", *bindings)
        assert expected == [stream for (stream,) in rows]
    database.close()
