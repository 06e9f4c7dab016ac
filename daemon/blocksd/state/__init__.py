"""The blocks in force, and the draft of what follows."""
