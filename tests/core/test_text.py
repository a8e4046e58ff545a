"""The reversible escape of the `path` column."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xcli.core.text import escape_path, join_names, one_line, short_text, unescape_path, valid_text

NAMES = st.binary(min_size=1, max_size=40).map(lambda name: name.replace(b"\0", b"\\x"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"photos/a.jpg", "photos/a.jpg"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        ("café ☕🦊.jpg".encode(), "café ☕🦊.jpg"),
        (b"back\\slash.jpg", r"back\\slash.jpg"),
        (b"\\xff", r"\\xff"),
        (b"\xff\\\xfe", r"\xff\\\xfe"),
        (b'new\nline "quoted", comma\t\r', 'new\nline "quoted", comma\t\r'),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a surrogate in UTF-8 clothes is not UTF-8
        (b"\xf0\x9f\xa6", r"\xf0\x9f\xa6"),  # the first three bytes of a fox
    ],
)
def test_escape_is_as_documented(name, text):
    assert escape_path(os.fsdecode(name)) == text
    assert os.fsencode(unescape_path(text)) == name


@given(NAMES)
@example(b"\\xff")
@example(b"\xff")
@example(b"\\\\\xf0\x9f")
def test_every_name_comes_back_from_valid_text(name):
    text = escape_path(os.fsdecode(name))
    text.encode()  # raises unless valid
    assert os.fsencode(unescape_path(text)) == name


@given(NAMES, NAMES)
def test_different_names_have_different_texts(one, other):
    assert (escape_path(os.fsdecode(one)) == escape_path(os.fsdecode(other))) == (one == other)


def test_unescape_takes_upper_case_digits_and_raw_bytes():
    assert os.fsencode(unescape_path("\\xFF" + os.fsdecode(b"\xfe"))) == b"\xff\xfe"


@pytest.mark.parametrize("text", ["\\", "a\\", "\\n", "\\x4", "\\xg0", "\\\\\\", "C:\\photos"])
def test_unescape_refuses_what_no_escape_begins_with(text):
    with pytest.raises(ValueError, match="backslash at byte"):
        unescape_path(text)


def test_a_character_that_stands_for_no_byte_is_no_path():
    with pytest.raises(UnicodeEncodeError):
        escape_path("\ud800")


@pytest.mark.parametrize(
    ("text", "valid"), [("plain \\ text", "plain \\ text"), ("é🦊\\", "é🦊\\"), ("caf\udce9\\", "caf\\xe9\\")]
)
def test_valid_text_changes_bad_bytes_only(text, valid):
    assert valid_text(text) == valid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 🦊 \\n", "plain é 🦊 \\n"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x00\x7f\x85\x9f", r"\x1b[31m\x00\x7f\x85\x9f"),
        ("\xa0 \u2028\u2029", "\xa0 " + r"\u2028\u2029"),
        ("\udcff\udc80\ud800", r"\xff\x80\ud800"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected


@pytest.mark.parametrize(
    "code", [0x061C, 0x180E, 0x200B, 0x200E, 0x200F, 0x2060, 0x206F, 0xFEFF, 0xFFF9, 0xE0001, 0xE0041]
)
def test_characters_that_hide_or_turn_text_around_are_escaped(code: int) -> None:
    assert one_line(f"a{chr(code)}b") == (f"a\\u{code:04x}b" if code < 0x10000 else f"a\\U{code:08x}b")


def test_joiners_stay() -> None:
    text = "\u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469"
    assert one_line(text) == text


def test_joins_no_more_names_than_can_be_read() -> None:
    assert join_names([]) == ""
    assert join_names(["'a'", "'b'"]) == "'a', 'b'"
    assert join_names(map(str, range(30))).endswith("8, 9 and 20 more")


def test_short_text() -> None:
    assert short_text("a\nb\x1b[1mc") == "a b [1mc"
    assert short_text("x" * 500) == "x" * 200 + "..."
    assert short_text(ValueError("one\ntwo")) == "ValueError: one two"
