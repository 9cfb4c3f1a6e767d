"""What acts for a turn."""
