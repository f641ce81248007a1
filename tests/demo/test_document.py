import pytest

from parrot_backend.demo.document import load_document, split_document


def test_the_document_is_shipped_and_long_enough_to_be_worth_a_summary():
    assert 12_000 < len(load_document()) < 16_000


@pytest.mark.parametrize("num_chunks", [1, 4, 8, 16])
def test_chunks_put_together_are_the_document(num_chunks):
    text = load_document()
    chunks = split_document(text, num_chunks)
    assert len(chunks) == num_chunks
    assert "\n\n".join(chunks) == text.strip()


def test_chunks_are_cut_between_paragraphs():
    assert split_document("a\n\nb\n\nc\n", 2) == ["a", "b\n\nc"]


def test_more_chunks_than_paragraphs_are_refused():
    with pytest.raises(ValueError, match="2 paragraphs"):
        split_document("a\n\nb", 3)
