"""Does the steps that the turn decides, and appends their outcome."""
