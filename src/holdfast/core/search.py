"""What a search finds: the words of a text, the terms of a query, and whether the one has the other. Pure.

A query is split at white space into terms. A session is found when its title has every term somewhere (as part of a
word, too), or when one of its texts has every term at the beginning of a word. Letter case does not matter, nor how a character
is composed. Texts are the closed text parts of its messages, up to TEXT_CHARACTERS_MAX of each; what was put in by the
server (synthetic), reasoning and the output of tools are not searched.

A term with marks in it (`src/main.py`, `foo_bar`) means its words in this order, one directly after the other. Marks alone
are looked for in titles only. Any query has an answer: nothing in it is an operator.

Every backend cuts texts and queries with `words`, so that they find the same. A change of what it answers needs a migration that
makes the stored index again.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple

from holdfast.core.messages import Part, TextPart, is_open

TEXT_CHARACTERS_MAX: Final = 1 << 18
"""What lies beyond this in one text is not searched: somebody pasted a file, and an append must not wait for its words."""

TERMS_MAX: Final = 32
"""Further terms of a query are left out."""

WORDS_MAX: Final = 64
"""Further words of a term are left out."""

WORD_CHARACTERS_MAX: Final = 64
"""A longer word (base64, say) counts as several, one after the other."""

# Scripts that put no spaces between words, and pictures: each of these characters is a word.
_ALONE: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u2190-\u2bff\U0001f000-\U0001faff"  # arrows, symbols, emoji
    "\u2e80-\u2fff\u3005-\u3007\u3021-\u30ff\u3100-\u312f\u31a0-\u31ff"  # radicals, kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_ASCII: Final = re.compile(rf"[0-9a-z]{{1,{WORD_CHARACTERS_MAX}}}")
_WORD: Final = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]{{1,{WORD_CHARACTERS_MAX}}}")


class Terms(NamedTuple):
    """`of_title`: each as it was typed, without letter case. `of_text`: the words of each; () if none has any."""

    of_title: tuple[str, ...]
    of_text: tuple[tuple[str, ...], ...]


def words(text: str) -> list[str]:
    """Each word consists of letters and digits only, or is one character of a script without spaces."""
    if text.isascii():
        return _ASCII.findall(text.lower())
    return _WORD.findall(folded(text))


def folded(text: str) -> str:
    """Without letter case, and each character composed in one way."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def terms_of(query: str) -> Terms:
    """A blank query has no terms: it leaves out nothing."""
    terms = tuple(dict.fromkeys(folded(query).split()))[:TERMS_MAX]
    cut = [tuple(words(term)[:WORDS_MAX]) for term in terms]
    return Terms(terms, tuple(dict.fromkeys(term for term in cut if term)))


def text_of(part: Part) -> str | None:
    """What of a part is searched; None for most kinds, and as long as it is growing."""
    if not isinstance(part, TextPart) or part.synthetic or is_open(part) or not part.text:
        return None
    return part.text[:TEXT_CHARACTERS_MAX]


def has_terms(found: Sequence[str], terms: Terms) -> bool:
    """Whether a text with these words has them all."""
    return bool(terms.of_text) and all(_has(found, term) for term in terms.of_text)


def _has(found: Sequence[str], term: Sequence[str]) -> bool:
    *whole, begun = term
    return any(
        found[at + len(whole)].startswith(begun) and list(found[at : at + len(whole)]) == whole
        for at in range(len(found) - len(whole))
    )
