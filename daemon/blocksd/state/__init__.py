"""The blocks in force, which files were moved, linked or saved from an older text, and the draft of what follows."""
