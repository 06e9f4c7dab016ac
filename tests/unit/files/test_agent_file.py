"""The file of an agent's properties: its rules are those of a frontmatter, and its messages speak of a file."""

from __future__ import annotations

import pytest

from blocksd.errors import EditRefused, InvalidFile, LimitExceeded
from blocksd.files import agent_file
from blocksd.files.frontmatter import keys_of, set_key

LABEL = "agents/sam/agent.yaml"

WRONG = [
    "- a\n",
    "5\n",
    "name: a\nname: b\n",
    "name: &a b\n",
    "name: *a\n",
    "name: !x b\n",
    "metadata: " + "[" * 40 + "\n",
    "metadata: " + "[" * 2_000_000 + "\n",
    "metadata: " + "{a: " * 40 + "\n",
    "name: a\n---\nname: b\n",
    "name: a\n...\nx: b\n",
    "name: a\n...\n---\nb: c\n",
    "name: 'a\n",
    "name: [\n",
    "[a]: b\n",
    "? {a: b}\n: c\n",
    "{{name}}: b\n",
    "name: a: b\n",
    "\tname: a\n",
    "name: a\x01\n",
    f"name: {'a' * 300_000}\n",
    "limit: 1e999\n",
]
"""One text for each way in which a frontmatter can be wrong."""


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:20]))
def test_each_message_speaks_of_the_file(text: str) -> None:
    """The same is wrong with a frontmatter, in the same line; only the words differ, and some hints."""
    with pytest.raises(InvalidFile) as found:
        agent_file.parse(text, LABEL)
    with pytest.raises(InvalidFile) as other:
        keys_of(text, 0)
    message, hint = found.value.message, found.value.facts["hint"]
    assert "frontmatter" not in f"{message} {hint}"
    assert message == other.value.message.replace("the frontmatter", "the file")
    assert found.value.facts.get("line") == other.value.facts.get("line")


@pytest.mark.parametrize(
    ("text", "value"), [("{name: a}\n", "b"), ("name: # why\n- 1\n", "b"), ("name: a\n", "b" * 300_000)]
)
def test_each_refusal_speaks_of_the_file(text: str, value: str) -> None:
    """Of an edit that cannot be made."""
    said = []
    for words in ((), (agent_file.FILE,)):
        try:
            set_key(text, "name", value, *words)
        except (EditRefused, LimitExceeded) as error:
            said.append(error.message)
    of_frontmatter, of_file = said
    assert of_file == of_frontmatter.replace("the frontmatter", "the file")
    assert "frontmatter" not in of_file
