"""The Python client; installs without the server."""
