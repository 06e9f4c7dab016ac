"""The configuration, the places it comes from, and the record of a running daemon."""
