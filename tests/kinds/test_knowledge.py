"""The kind ``knowledge``: what a document becomes, and what is published of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidChangeError, UnknownKindError
from holdfast.kinds import KINDS, kinds, load_kind
from holdfast.kinds.knowledge import KIND, ingest
from holdfast.ports.kind import Kind
from holdfast.testing.kind import KindSuite, Pairs, admit, session_of

MARKDOWN = """\
---
title: not a heading
tags: [a]
---
Preface before any heading, long enough to be a piece of its own, because it says several things at some length.

# The *whole* `manual`

Intro.

## Part one

Some text under part one. It goes on for a while.

```python
# not a heading
print("## nor this")
```

Setext part
-----------

| a | b |
|---|---|
| 1 | 2 |

> # a heading in a quotation is not one of the document

### Deep [link](https://example.org) ![picture](x.png)

Deep text.
"""


class TestKnowledge(KindSuite):
    @pytest.fixture
    def kind(self) -> Kind:
        return KIND

    @pytest.fixture
    def bodies(self) -> Pairs:
        return [
            (
                "chunks/1",
                {"text": "one", "headings": ["A", "B"], "spans": [{"start": 4, "end": 7}], "origin": "parsed"},
            ),
            ("chunks/2", {"text": "two, edited", "metadata": {"k": [1]}, "spans": [{"start": 9, "end": 12, "at": 2}]}),
            ("chunks/3", {"text": "three"}),
            ("chunks/4", {"text": "not published", "enabled": False}),
        ]

    @pytest.fixture
    def broken(self) -> Pairs:
        return [
            ("chunks/1", {}),
            ("chunks/1", {"text": ""}),
            ("chunks/1", {"text": " \n\t"}),
            ("chunks/1", {"text": "a\x00b"}),
            ("chunks/1", {"text": 7}),
            ("chunks/1", {"text": "a", "origin": "guessed"}),
            ("chunks/1", {"text": "a", "enabled": "yes"}),
            ("chunks/1", {"text": "a", "spans": [{"start": 0, "end": 2}]}),
            ("chunks/1", {"text": "a", "spans": [{"start": -1, "end": 0}]}),
            ("chunks/1", {"text": "a", "spans": [{"start": 5, "end": 5}]}),
            ("chunks/1", {"text": "a", "spans": [{"start": 5, "end": 6, "at": 1}]}),
            ("chunks/1", {"text": "a", "spans": [{"start": 5, "end": 6, "at": -1}]}),
            ("chunks/1", {"text": "abc", "spans": [{"start": 0, "end": 2}, {"start": 5, "end": 6, "at": 1}]}),
            ("chunks/1", {"text": "a", "spans": [{"start": 0, "end": 1, "page": 3}]}),
            ("pages/1", {"text": "a"}),
        ]

    @pytest.fixture
    def sources(self) -> Sequence[tuple[bytes, str]]:
        return [
            (MARKDOWN.encode(), "manual.md"),
            (MARKDOWN.replace("\n", "\r\n").encode(), "manual.MD"),
            (MARKDOWN.encode(), "manual.txt"),
            (b"\xef\xbb\xbf# Marked\n\ntext", "bom.md"),
            ("Größe ½ 漢字 😀\n\n".encode() * 200, "unicode.txt"),
            (b"x" * 30_000, "one-word.txt"),
        ]


def headed(text: str, name: str = "a.md") -> list[tuple[list[str], str]]:
    return [(body.get("headings", []), body["text"]) for _, body in ingest(text.encode(), name).items]


def test_every_piece_is_the_source_at_its_span() -> None:
    for data, name in TestKnowledge().sources.__wrapped__(TestKnowledge()):  # type: ignore[attr-defined]
        source = data.decode()
        reached = 0
        for _, body in ingest(data, name).items:
            (span,) = body["spans"]
            assert source[span["start"] : span["end"]] == body["text"]
            assert source[reached : span["start"]].strip("\ufeff").strip() == ""
            assert body["origin"] == "parsed"
            reached = span["end"]
        assert source[reached:].strip() == ""


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3_000), st.sampled_from(["a.md", "a.txt"])
)
def test_nothing_of_a_text_is_lost_but_white_space_between_pieces(text: str, name: str) -> None:
    if not text.removeprefix("\ufeff").strip():
        with pytest.raises(InvalidChangeError):
            ingest(text.encode(), name)
        return
    items = ingest(text.encode(), name).items
    admit(KIND, items)
    rest, reached = "", 0
    for _, body in items:
        (span,) = body["spans"]
        assert text[span["start"] : span["end"]] == body["text"]
        rest += text[reached : span["start"]]
        reached = span["end"]
    assert (rest + text[reached:]).replace("\ufeff", "").strip() == ""


def test_keys_count_from_one_and_sort() -> None:
    keys = [key for key, _ in ingest(b"word " * 5_000, "a.txt").items]
    assert keys[:2] == ["chunks/0001", "chunks/0002"]
    assert keys == sorted(keys)


def test_each_piece_knows_the_headings_it_stands_under() -> None:
    text = "".join(f"{'#' * depth} H{depth}\n\n{'Words under it. ' * 40}\n\n" for depth in (1, 2, 3, 2))
    paths = [path for path, _ in headed(text)]
    assert paths[0] == ["H1"]
    assert ["H1", "H2", "H3"] in paths
    assert paths[-1] == ["H1", "H2"]


def test_code_front_matter_and_quotations_have_no_headings_and_markup_is_left_out() -> None:
    for text in (MARKDOWN, MARKDOWN.replace("\n", "\r\n")):
        found = {heading for path, _ in headed(text) for heading in path}
        assert found <= {"The whole manual", "Part one", "Setext part", "Deep link"}
        assert "The whole manual" in found


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert headed("---\n\n# First\n\ntext\n\n---\n\n# Second\n")[0][0] in (["First"], [])
    assert ingest(b"---\n\n# First\n\ntext\n\n---\n", "a.md").title == "First"


def test_the_title_is_the_first_heading_or_the_file_name() -> None:
    assert ingest(MARKDOWN.encode(), "m.md").title == "The whole manual"
    assert ingest(MARKDOWN.encode(), "folder/m.txt").title == "m.txt"
    assert ingest(b"no heading", "C:\\docs\\m.md").title == "m.md"
    assert ingest(b"#\n\n# Later", "m.md").title == "Later"
    assert ingest(b"text", "").title == "untitled"
    assert len(ingest(b"# " + b"long " * 500, "m.md").title) == 200


def test_pieces_are_of_a_size_that_can_be_found_and_read() -> None:
    paragraphs = [f"Paragraph {number}. " + "It has a number of words in it, as text has. " * 6 for number in range(60)]
    sizes = [len(text) for _, text in headed("\n\n".join(paragraphs))]
    assert max(sizes) <= 1_000
    assert sum(size >= 200 for size in sizes) >= len(sizes) - 1


def test_a_lone_heading_goes_with_what_follows_it() -> None:
    body = "\n\n".join("A paragraph of some length, which stands by itself. " * 5 for _ in range(6))
    for _, text in headed(f"# Title\n\n## Section\n\n{body}"):
        assert len(text) > 80


def test_longer_documents_get_longer_pieces_and_leave_room_to_split() -> None:
    text = "\n\n".join("A paragraph of some length, which stands by itself. " * 5 for _ in range(320))
    assert len(text) > 80_000
    assert len(ingest(text.encode(), "a.md").items) <= 80


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b" \r\n\t\n", "empty"),
        (b"\xef\xbb\xbf  ", "empty"),
        (b"abc\xff", "not UTF-8 text (byte 3)"),
        (b"%PDF-1.7\n\xe2\xe3\xcf\xd3", "not UTF-8"),
        ("text".encode("utf-16"), "UTF-16"),
        (b"a\x00b", "NUL"),
    ],
)
def test_what_is_no_text_is_refused_and_told_why(data: bytes, says: str) -> None:
    with pytest.raises(InvalidChangeError, match=r"a\.md") as refused:
        ingest(data, "a.md")
    assert says in str(refused.value)


def test_the_source_is_described() -> None:
    made = ingest("# Größe\n".encode(), "a.md")
    assert made.source["name"] == "a.md"
    assert made.source["media"] == "text/markdown"
    assert (made.source["bytes"], made.source["characters"]) == (10, 8)
    assert len(made.source["sha256"]) == 64


def test_only_enabled_chunks_are_published_in_order_with_what_a_citation_needs() -> None:
    pairs: list[tuple[str, Any]] = [
        ("chunks/b", {"text": "first", "headings": ["H"], "spans": [{"start": 3, "end": 8}], "origin": "parsed"}),
        ("chunks/x", {"text": "hidden", "enabled": False}),
        ("chunks/a", {"text": "second", "metadata": {"page": 2}}),
    ]
    first, second = KIND.publish(session_of(KIND, pairs, title="T", source={"name": "a.md"}))
    assert (first.key, first.text, second.key, second.text) == ("chunks/b", "first", "chunks/a", "second")
    assert first.body == {
        "title": "T",
        "source": "a.md",
        "headings": ["H"],
        "metadata": {},
        "spans": [{"at": 0, "start": 3, "end": 8}],
        "origin": "parsed",
    }
    assert second.body["metadata"] == {"page": 2}
    assert second.body["origin"] == "added"


def test_a_session_without_enabled_chunks_publishes_nothing() -> None:
    assert KIND.publish(session_of(KIND, [("chunks/1", {"text": "a", "enabled": False})])) == []


def test_the_table_of_kinds_gives_each_by_its_own_name() -> None:
    assert {name: kind.name for name, kind in kinds().items()} == {name: name for name in KINDS}
    assert load_kind("knowledge") is KIND
    with pytest.raises(UnknownKindError):
        load_kind("nonsense")
