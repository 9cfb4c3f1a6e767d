"""The HTTP server and the faces it shows."""
