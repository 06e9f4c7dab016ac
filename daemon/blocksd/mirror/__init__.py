"""The projection of blocks in Redis: keys, access rules, connection, scripts and commands."""
