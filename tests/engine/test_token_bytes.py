"""The bytes of tokens: together they are the text, whatever the vocabulary."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from magpie_ray.engine.token_bytes import token_bytes
from magpie_ray.errors import FormatError
from magpie_ray.model.resolve import resolve_model
from magpie_ray.model.tokenizer import load_tokenizer

CORPUS = ["Sure, what is this? # Which one? **The** last. 你好 Ça va «Привет»"] * 4


def wrapped(core: Tokenizer) -> Any:
    core.add_special_tokens([AddedToken("<end>", special=True)])
    core.add_tokens([AddedToken("<tool> ", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")


def byte_level() -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return wrapped(core)


def sentencepiece_like() -> Any:
    """As Llama 2: ▁ for a space, one in front, bytes as tokens where a character is not in the vocabulary."""
    words = ["▁", "▁What", "▁is", "S", "ure", "Sure", ",", "#", "*", "**", "▁▁"]
    vocabulary = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    core = Tokenizer(
        models.BPE(
            vocab={token: at for at, token in enumerate(vocabulary)},
            merges=[("*", "*"), ("▁", "▁")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrapped(core)


def tiny_chat() -> Any:
    return load_tokenizer(resolve_model("builtin:tiny-chat", None).location).tokenizer


TOKENIZERS = {made.__name__: made() for made in (byte_level, sentencepiece_like, tiny_chat)}
VOCABULARIES = {name: token_bytes(tokenizer) for name, tokenizer in TOKENIZERS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_bytes_of_tokens_are_the_text(name: str, text: str) -> None:
    tokenizer, vocabulary = TOKENIZERS[name], VOCABULARIES[name]
    pieces = [vocabulary.pieces[i] for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    # Some put a space in front.
    assert b"".join(piece or b"" for piece in pieces) in (text.encode(), b" " + text.encode())
    assert vocabulary.is_exact


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_write_nothing_and_other_added_ones_their_own_text(name: str) -> None:
    tokenizer, vocabulary = TOKENIZERS[name], VOCABULARIES[name]
    assert len(vocabulary.pieces) == len(tokenizer)
    assert all(vocabulary.pieces[token_id] is None for token_id in tokenizer.all_special_ids)
    if name != "tiny_chat":
        assert vocabulary.pieces[tokenizer.convert_tokens_to_ids("<tool> ")] == b"<tool> "


class Opaque:
    """A tokenizer that shows its tokens only as decoded text, as some do."""

    def __init__(self, tokenizer: Any, shift: int = 0) -> None:
        self._tokenizer, self._shift = tokenizer, shift
        self.all_special_ids = tokenizer.all_special_ids
        self.added_tokens_decoder: dict[int, str] = {}

    def __call__(self, text: str, **options: Any) -> Any:
        return self._tokenizer(text, add_special_tokens=False)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"token {token_id}" for token_id in ids]

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode([ids[0], *(token_id + self._shift for token_id in ids[1:])]))


def test_where_tokens_are_not_shown_decoding_tells_all_but_parts_of_characters() -> None:
    shown, hidden = VOCABULARIES["byte_level"], token_bytes(Opaque(TOKENIZERS["byte_level"]))
    assert hidden.is_exact is False
    ascii_pieces = [(a, b) for a, b in zip(shown.pieces, hidden.pieces, strict=True) if a and a.isascii()]
    assert len(ascii_pieces) > 100
    assert all(a == b for a, b in ascii_pieces if a != b"<tool> ")


def test_a_model_may_have_more_token_ids_than_its_tokenizer_or_fewer() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    size = len(vocabulary.pieces)
    assert vocabulary.resized(size + 2).pieces == [*vocabulary.pieces, None, None]
    assert vocabulary.resized(size - 2).pieces == vocabulary.pieces[:-2]


def test_a_tokenizer_that_nothing_explains_is_refused() -> None:
    with pytest.raises(FormatError, match=r"the text of each token .* leave first_tokens out"):
        token_bytes(Opaque(TOKENIZERS["byte_level"], shift=1))
