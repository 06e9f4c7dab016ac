"""A live copy of the folder on another host: it follows the mirror, and never writes over a local edit."""
