"""Tools behind one port, a file each."""
