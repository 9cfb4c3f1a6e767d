"""The Durable Streams protocol without I/O: requests in, responses and frames out. Knows nothing of sockets, stores, clocks."""
