"""One round of the daemon: collect, read, decide, commit, project."""
