"""Directories of text files that agents see beside blocks."""
