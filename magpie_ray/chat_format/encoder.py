"""Text to token ids, as it stands in a whole rendered dialogue.

Owns: every call that tokenizes. What always holds: ids come from tokenizing from the start of a dialogue, so
that tokenizers which add a word border in front of a lone text do no harm; a beginning-of-sequence token
that the tokenizer adds by itself stands in front exactly once; where white space at the end of a piece is
joined with the first word of the message, it is left to the message, as it was in training.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

MESSAGE = "word"  # stands for any message where the text up to some place is needed
# Messages begin and end in many ways. These do so in ways that no tokenizer joins with markup, and differ
# in their first and last tokens, so that what is common to all of them is the markup alone.
_OPENINGS = ("What", "Is", "the", "Zoo", "7")
_ENDINGS = ("word", "7", "Zoo")
# How vocabularies write white space: as it is, by byte-level or sentencepiece stand-ins, as byte tokens.
_BLANK = re.compile(r"[\sĠĊĉč▁]+|<0x(09|0A|0D|20)>")
# What real messages end and begin with beyond that, to see whether a tokenizer joins it with the markup.
SAMPLES = ("Why is the sky blue?", "1. One\n2. Two.", "- a\n- (b)", "`x = f(y)`", "你好。", "Ça va", '"So"')


class Encoder:
    """A tokenizer as this project uses it."""

    def __init__(self, tokenizer: Any, *, lead: Sequence[int] | None = None) -> None:
        self._tokenizer = tokenizer
        self.lead = list(self._own_lead() if lead is None else lead)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that starts a dialogue; special tokens in it are recognised."""
        ids = self.alone(text)
        return ids if ids[: len(self.lead)] == self.lead else self.lead + ids

    def alone(self, text: str) -> list[int]:
        """Ids of a text by itself, with nothing in front."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def piece(self, before: str, piece: str) -> tuple[int, ...]:
        """Ids of `piece` between any message and any other; `before` is all text before the first of them.

        `before` empty: the piece starts the dialogue, and no message stands in front of it.
        """
        for ending in _ENDINGS if before else ("",):
            head = self.encode(before + ending) if before else []
            grown = [self.encode(before + ending + piece + opening) for opening in _OPENINGS]
            common = _common_start(grown)
            if common[: len(head)] != head:
                continue  # this ending is joined with the piece: another may not be
            if not self._only_blanks_lost(grown[0][len(common) :], _OPENINGS[0]):
                common = self.encode(before + ending + piece)
            return tuple(common[len(head) :])
        return tuple(self.alone(piece))

    def keeps_blanks(self, text: str, ids: Sequence[int]) -> bool:
        """Whether `ids`, the `piece` of this text, have the white space at its end too."""
        return bool(self._tokenizer.decode(list(ids)) == self._tokenizer.decode(self.encode(text)))

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that the tokenizer declares special."""
        added = self._added()
        flagged = {token_id for token_id, token in added.items() if getattr(token, "special", False)}
        return tuple(sorted(flagged | set(self._tokenizer.all_special_ids)))

    @cached_property
    def markers(self) -> dict[int, str]:
        """Id -> text of every token that can serve as a mark: special, or added and not mere white space."""
        added = {token_id: str(token) for token_id, token in self._added().items()}
        special = {token_id: self._tokenizer.convert_ids_to_tokens(token_id) for token_id in self.special_ids}
        return {token_id: text for token_id, text in {**added, **special}.items() if text and text.strip()}

    @cached_property
    def blank_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that are white space and nothing else."""
        likely = [i for token, i in self._tokenizer.get_vocab().items() if _BLANK.fullmatch(token)]
        return tuple(sorted(i for i in likely if not self._tokenizer.decode([i]).strip()))

    def joins(self, texts: Sequence[str], pieces: Sequence[Sequence[int]]) -> list[str]:
        """Sample messages at whose borders the whole text has other ids than its parts have.

        `texts` are the texts before, between and after the messages of a dialogue, `pieces` their ids.
        """
        return [sample for sample in SAMPLES if not self._adds_up(sample, texts, pieces)]

    def _adds_up(self, sample: str, texts: Sequence[str], pieces: Sequence[Sequence[int]]) -> bool:
        text, ids = texts[0], list(pieces[0])
        for written, piece in zip(texts[1:], pieces[1:], strict=True):
            whole = self.encode(text + sample)
            if whole[: len(ids)] != ids:
                return False
            text, ids = text + sample + written, [*whole, *piece]
        return self.encode(text + "What")[: len(ids)] == ids

    def _only_blanks_lost(self, ids: Sequence[int], opening: str) -> bool:
        return bool(self._tokenizer.decode(list(ids)).strip().lower() == opening.lower())

    def _own_lead(self) -> list[int]:
        plain = self.alone("a")
        full = list(self._tokenizer("a")["input_ids"])
        starts = range(len(full) - len(plain) + 1)
        return next((full[:start] for start in starts if full[start : start + len(plain)] == plain), [])

    def _added(self) -> dict[int, Any]:
        return dict(getattr(self._tokenizer, "added_tokens_decoder", {}))


def _common_start(rows: Sequence[Sequence[int]]) -> list[int]:
    start: list[int] = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        start.append(column[0])
    return start
