"""Characters that came in two halves. JSON writes those beyond the first 65,536 as two (two escapes), and who cuts texts in
JavaScript may cut between them. A half is no text: it cannot be recorded, or sent on."""

import re
from collections.abc import Hashable
from typing import Final

_ANY: Final = re.compile("[\ud800-\udfff]")
_FIRST: Final = re.compile("[\ud800-\udbff]\\Z")
_SECOND: Final = re.compile("[\udc00-\udfff]")


class WholeCharacters:
    """The pieces of texts, each known by its `place`, with whole characters only: a half waits for the next piece. One that stays
    alone becomes a replacement character, or is nothing at the end."""

    def __init__(self) -> None:
        self._begun: dict[Hashable, str] = {}

    def of(self, text: str, place: Hashable) -> str:
        if not self._begun and _ANY.search(text) is None:
            return text
        begun = self._begun.pop(place, "") if text else ""
        if begun and _SECOND.match(text):
            text = (begun + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        elif begun:
            text = begun + text
        if _FIRST.search(text):
            self._begun[place] = text[-1]
            text = text[:-1]
        return _ANY.sub("\ufffd", text)
