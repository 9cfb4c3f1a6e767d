"""Wire protocols without I/O: bytes in, protocol events out; knows no session."""
