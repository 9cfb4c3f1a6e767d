"""What a user gives to reach a provider, in OpenCode's shapes. Secret: none of it may leave the server."""

from typing import Any

import msgspec

from holdfast.core.wire import Wire


class ApiKey(Wire, tag_field="type", tag="api"):
    key: str
    metadata: dict[str, str] | None = None


class OAuthTokens(Wire, tag_field="type", tag="oauth"):
    """`expires` is a time in milliseconds."""

    refresh: str
    access: str
    expires: int
    account_id: str | None = msgspec.field(name="accountId", default=None)
    enterprise_url: str | None = msgspec.field(name="enterpriseUrl", default=None)


class WellKnown(Wire, tag_field="type", tag="wellknown"):
    """An organisation's token: `key` is the name of the environment variable that its configuration refers to."""

    key: str
    token: str


Credential = ApiKey | OAuthTokens | WellKnown


def read_credentials(text: bytes) -> dict[str, Credential]:
    """The entries of an `auth.json` that are what they should be; others are left out. Raises MsgspecError for what is no
    JSON object."""
    found: dict[str, Credential] = {}
    for provider_id, value in msgspec.json.decode(text, type=dict[str, Any]).items():
        try:
            found[provider_id] = msgspec.convert(value, Credential)
        except msgspec.ValidationError:
            continue
    return found
