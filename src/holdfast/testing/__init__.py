"""Public tools for tests of backends, providers and tools."""
