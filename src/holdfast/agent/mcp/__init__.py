"""Tools, prompts and resources of MCP servers. `servers` keeps a connection, `tools` shows the LLM what is behind it."""
