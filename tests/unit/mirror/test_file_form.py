from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocksd.errors import InvalidFile
from blocksd.files.document import split
from blocksd.mirror.file_form import FORM_FIELDS, USUAL_FORM, USUAL_MODE, FileForm, form_of, form_shown
from parsed import parse
from support import examples

BOM = "\ufeff"
PIECES = [
    "---",
    "---\n",
    "--- \n",
    "\n",
    "\r\n",
    "\r",
    BOM,
    "limit: 9\n",
    "# why\n",
    "x",
    "é",
    "𝄞\u200d",
    "\u2028",
    " ",
    "\t",
]
files = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=30
)
fenced = st.tuples(st.sampled_from(["", BOM]), st.sampled_from(["\n", "\r\n"]), st.booleans(), files).map(
    lambda parts: f"{parts[0]}---{parts[1]}{f'limit: 500 # why{parts[1]}' if parts[2] else ''}---{parts[1]}{parts[3]}"
)


@settings(deadline=None, max_examples=examples(3000))
@given(files | fenced, st.sampled_from([USUAL_MODE, 0o600, 0o777, 0]), st.sampled_from(["", "pe\u0301.md"]))
@example("one", USUAL_MODE, "")
@example("\r\nx", USUAL_MODE, "")
@example("---\n---\n\r\n\nx", USUAL_MODE, "")
@example("---\n---", USUAL_MODE, "")
def test_every_readable_file_comes_back_to_the_byte(text: str, mode: int, path: str) -> None:
    """The block's value and the fields of the form, as the mirror has them, are all that the bytes of a file are made of."""
    data = text.encode()
    try:
        value = split(text).value
    except InvalidFile:
        return
    form = form_of(data, value, path=path, mode=mode)
    assert form.data(value) == data
    assert form_shown({"value": value, "version": "1", **form.fields()}) == form
    assert set(form.fields()) <= set(FORM_FIELDS)
    assert form.raw is None or form.fields().keys() <= {"file", "path", "mode"}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("one\n", USUAL_FORM),
        ("\n", USUAL_FORM),
        ("", FileForm(tail="")),
        ("one", FileForm(tail="")),
        ("one\n\n", USUAL_FORM),
        (f"{BOM}one\n", FileForm(head=BOM)),
        ("---\nlimit: 50 # why\n---\n\none\n", FileForm(head="---\nlimit: 50 # why\n---\n\n")),
        ("---\nlimit: 50\n---", FileForm(head="---\nlimit: 50\n---", tail="")),
        ("---\n---\n\n", FileForm(head="---\n---\n\n", tail="")),
        ("---\n---\n---\nx: 1\n---\n", FileForm(head="---\n---\n")),
        ("---\r\nlimit: 50\r\n---\r\none\r\ntwo\r\n", FileForm("---\r\nlimit: 50\r\n---\r\n", "\r\n", "\r\n")),
        ("one\r\n", FileForm(tail="\r\n")),
        ("one\rtwo", FileForm(newline="\r", tail="")),
        ("one\r\ntwo\n", FileForm(newline="\r\n")),
        ("one\r\ntwo\nthree\n", FileForm(raw="one\r\ntwo\nthree\n")),
    ],
)
def test_usual_files_need_few_fields(text: str, form: FileForm) -> None:
    """The parts are those of the file; only lines that end in several ways need the whole text beside the value."""
    value = parse(text.encode(), "x").value
    assert form_of(text.encode(), value) == form
    assert form.data(value) == text.encode()
