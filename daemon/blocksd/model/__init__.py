"""Pure values and functions: labels, blocks, attachments, revisions, problems, text edits, merging and the prompt."""
