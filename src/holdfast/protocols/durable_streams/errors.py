"""What a request can have wrong before anybody asks the store."""


class RemoteProtocolError(ValueError):
    """The request is malformed, and will be again. `str(error)` is one sentence for the person who sent it."""
