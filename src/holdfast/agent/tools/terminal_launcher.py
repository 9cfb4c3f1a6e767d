"""Becomes the program of a terminal: `python -I -S terminal_launcher.py GATE PROGRAM [ARGUMENT…]`, with the terminal as its
standard streams and in a session of its own. Imports only the standard library.

A program of its own, because a terminal can only be made the controlling one in the child, where a server with threads
must not run Python. It waits for a line on the descriptor GATE: at the end of that pipe the server died, and the program
never runs.
"""

import fcntl
import os
import signal
import sys
import termios

_KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
"""Which a terminal sends for Ctrl-C, Ctrl-\\ and Ctrl-Z."""


def main() -> None:
    gate, program, *arguments = sys.argv[1:]
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if not os.read(int(gate), 1):
        sys.exit(125)
    os.close(int(gate))
    # What is ignored stays so over exec: two that Python ignores, and what a server ignores that `nohup` or a script started.
    for number in (*_KEYS, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(program, [program, *arguments])
    except OSError as error:
        print(f"{program}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
