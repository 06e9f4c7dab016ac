"""The folder on disk: reading, parsing, atomic writing and watching of block files."""
