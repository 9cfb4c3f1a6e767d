"""The words everyone shares: types, events, the reducer, ports and errors. Pure: no I/O, no clock, no randomness."""
