"""The lexical embedder: deterministic, of unit length, and good for words, not for meanings."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.embedders import DEFAULT, EMBEDDERS, load_embedder
from holdfast.embedders.lexical import LexicalEmbedder
from holdfast.errors import ConfigurationError


def vectors(*texts: str) -> npt.NDArray[np.float32]:
    return np.array([np.frombuffer(raw, "<f4") for raw in LexicalEmbedder().vectors(texts)])


def likeness(one: str, other: str) -> float:
    a, b = vectors(one, other)
    return float(a @ b)


@given(st.text(max_size=300))
def test_every_text_has_a_vector_of_unit_length_and_only_an_empty_one_has_none(text: str) -> None:
    (vector,) = vectors(text)
    assert vector.shape == (512,)
    assert np.linalg.norm(vector) == pytest.approx(1.0 if text.strip() else 0.0, abs=1e-5)


@given(st.lists(st.text(max_size=60), max_size=8))
def test_a_text_has_the_same_vector_in_whatever_company(texts: list[str]) -> None:
    embedder = LexicalEmbedder()
    assert embedder.vectors(texts) == [embedder.vectors([text])[0] for text in texts]


async def test_large_batches_go_through_a_thread_and_come_out_the_same() -> None:
    embedder = LexicalEmbedder()
    texts = [f"text number {number} " * 20 for number in range(400)]
    assert sum(map(len, texts)) > 100_000
    assert await embedder.embed(texts) == [(await embedder.embed([text]))[0] for text in texts]
    assert await embedder.embed([]) == []


def test_another_process_with_another_hash_seed_gives_the_same_vectors() -> None:
    code = (
        "from holdfast.embedders.lexical import LexicalEmbedder;"
        "print(LexicalEmbedder().vectors(['Leases and fences, 漢字 x²'])[0].hex())"
    )
    given_out = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert given_out == {LexicalEmbedder().vectors(["Leases and fences, 漢字 x²"])[0].hex()}


def test_the_vectors_of_this_name_never_change() -> None:
    """A change of these figures needs a new name, or stored vectors would be compared with ones of another model."""
    (vector,) = vectors("lease lease lease lease fence")
    assert [round(float(vector[place]), 4) for place in (16, 185, 41, 93)] == [-0.7909, -0.3314, 0.1582, -0.1582]
    assert np.count_nonzero(vector) == 20


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("Ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("cafe\u0301", "café"),
        ("a, b; c!", "a b c"),
        ("two words", "words two"),
    ],
)
def test_case_width_ligatures_and_punctuation_do_not_count(one: str, other: str) -> None:
    assert likeness(one, other) == pytest.approx(1.0, abs=1e-5)


def test_words_of_one_stem_are_closer_than_words_of_none() -> None:
    assert likeness("publishing", "published") > 0.2
    assert likeness("publishing", "published") > likeness("publishing", "automobile") + 0.2


def test_it_is_lexical_and_not_semantic() -> None:
    assert abs(likeness("car", "automobile")) < 0.2


def test_a_repeated_word_counts_less_each_time() -> None:
    once, often = (
        likeness("lease " + "other words here", "lease"),
        likeness("lease " * 50 + "other words here", "lease"),
    )
    assert once < often < 1.0


def test_scripts_without_spaces_are_found_by_parts_of_a_run() -> None:
    assert likeness("検索", "全文検索の仕組み") > likeness("天気", "全文検索の仕組み") + 0.2


def test_a_query_finds_its_text_among_many() -> None:
    texts = [
        f"paragraph {number} about subject{number * 7919} and its matter{number * 104729}" for number in range(300)
    ]
    matrix = vectors(*texts)
    found = [int(np.argmax(matrix @ vectors(f"subject{n * 7919} matter{n * 104729}")[0])) for n in range(300)]
    assert sum(place == number for number, place in enumerate(found)) >= 270


def test_the_table_gives_each_embedder_by_its_own_name() -> None:
    assert {name: load_embedder(name).name for name in EMBEDDERS} == {name: name for name in EMBEDDERS}
    assert load_embedder().name == DEFAULT
    with pytest.raises(ConfigurationError):
        load_embedder("nonsense")
