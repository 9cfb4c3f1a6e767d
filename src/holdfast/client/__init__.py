"""The Python client; installs without the server.

async with Client("http://127.0.0.1:4096") as client:
    session = await client.create_session()
    async for item in client.events(directory=session.directory):
        ...
"""

from holdfast.client.api import DEFAULT_URL, Client, is_local
from holdfast.client.errors import Refused, Unreachable
from holdfast.client.subscription import Interrupted, Received

__all__ = ["DEFAULT_URL", "Client", "Interrupted", "Received", "Refused", "Unreachable", "is_local"]
