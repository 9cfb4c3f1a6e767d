"""Short names for sessions, easy to say and to tell apart: `amber-harbor`. Not unique; ids are."""

from collections.abc import Callable
from typing import Final

_ADJECTIVES_TEXT: Final = (
    "agile amber ample azure balmy blithe bold brave breezy bright brisk calm candid cheery chilly civic clean clear "
    "coral cosy crimson dapper daring deft eager early earnest even fair fleet fond frank fresh gallant genial glad "
    "golden grand hardy hazel hearty honest humble ivory jaunty keen kind lively lofty loyal lucid lunar mellow merry "
    "mild modest neat nimble noble olive patient placid plucky polite prime proud quick ready regal robust rosy rustic "
    "sage serene sharp silver sincere sleek smooth snug solar sound spry stable steady stout sturdy sunlit swift tidal "
    "tidy tranquil trim true upbeat valiant vivid warm wavy whole witty woven zesty"
)

_NOUNS_TEXT: Final = (
    "acorn alder anchor anvil apple arbor arrow aspen atoll badger basin bay beacon birch bison bramble breeze bridge "
    "brook buoy cabin canoe canyon cedar chart cliff clover coast compass coral cove crane creek delta dolphin dune eagle "
    "ember estuary falcon fern ferry finch fjord forest garnet glade grove gull harbor heron hill inlet iris island "
    "jetty juniper kelp kestrel knoll lagoon lantern larch lark ledge lichen linden lynx maple marlin marsh meadow mesa "
    "moss oak oasis orchard osprey otter pebble pelican pier pine plover pond quartz quay raft raven reef ridge river "
    "robin rowan sail salmon shell shoal shore spruce stone stork summit swan tern thicket tide trout valley vessel "
    "walnut wharf willow wren"
)

_ADJECTIVES: Final = _ADJECTIVES_TEXT.split()
_NOUNS: Final = _NOUNS_TEXT.split()


def new_slug(pick: Callable[[int], int]) -> str:
    """`pick(n)` gives a number in [0, n)."""
    return f"{_ADJECTIVES[pick(len(_ADJECTIVES))]}-{_NOUNS[pick(len(_NOUNS))]}"
