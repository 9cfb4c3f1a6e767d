"""The turn as a pure machine: what to do next, from the state alone."""
