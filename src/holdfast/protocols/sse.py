"""Server-sent events without I/O."""
