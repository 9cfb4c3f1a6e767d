"""The OpenCode face."""
