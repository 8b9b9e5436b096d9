"""The calls of a tokenizer: which token ids it has."""

from importlib.resources import files
from typing import Any

from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.model.tokenizer import load_tokenizer


def test_ids_behind_the_tokenizers_own_are_not_known() -> None:
    tokenizer = load_tokenizer(str(files("magpie_ray").joinpath("tiny_chat"))).tokenizer
    encoder = Encoder(tokenizer)
    assert encoder.knows(range(len(tokenizer)))
    assert encoder.knows([])
    assert not encoder.knows([5, len(tokenizer)])


def test_ids_that_a_vocabulary_leaves_out_are_not_known() -> None:
    class WithGap:
        """Adds a token far behind the vocabulary."""

        all_special_ids = (9,)

        @property
        def added_tokens_decoder(self) -> dict[int, str]:
            return {9: "<end>"}

        def __len__(self) -> int:
            return 4

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [0]}

        def decode(self, ids: list[int]) -> str:
            return "a" * len(ids)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
            return ["a" if i < 4 or i == 9 else None for i in ids]

    encoder = Encoder(WithGap(), lead=[])
    assert encoder.knows([0, 3, 9])
    assert not encoder.knows([0, 4])
    assert not encoder.knows([10])
