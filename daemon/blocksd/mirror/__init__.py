"""The projection of blocks in Redis: keys, access rules, connections, scripts, commands, comparison and repair."""
