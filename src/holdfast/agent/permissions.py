"""The pure rules of what a tool call may do."""
