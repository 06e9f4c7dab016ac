"""The command line: commands that read, write and administer, their output, and the man page."""
