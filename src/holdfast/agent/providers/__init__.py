"""Language models behind one port, a file each."""
