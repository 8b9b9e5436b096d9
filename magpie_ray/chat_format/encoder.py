"""Text to token ids, as the ids stand in a whole rendered dialogue.

Owns: every call that tokenizes. Invariants: text is tokenized from the start of a dialogue, because some
tokenizers put a word border in front of a lone text. A beginning-of-sequence token that the tokenizer adds by
itself stands in front exactly once. White space that the tokenizer joins with the first word of a message
belongs to the message, as in training.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

MESSAGE = "word"  # stands for any earlier message
# Beginnings and ends of messages. No tokenizer joins them with markers, and their first and last tokens
# differ, so the ids that all of them share are those of the markers.
_OPENINGS = ("What", "Is", "the", "Zoo", "7")
OPENING = _OPENINGS[0]
_ENDINGS = ("word", "7", "Zoo")
# Texts, of which a tokenizer joins at least one with nothing that follows.
_ANCHORS = ("\n", "7", "Zoo", "。")
# White space in vocabularies: itself, the stand-ins of byte-level BPE and sentencepiece, byte tokens.
_BLANK = re.compile(r"[\sĠĊĉč▁]+|<0x(09|0A|0D|20)>")
# Other beginnings and ends of real messages, to test whether a tokenizer joins them with markers.
SAMPLES = ("Why is the sky blue?", "1. One\n2. Two.", "- a\n- (b)", "`x = f(y)`", "你好。", "Ça va", '"So"')


class Encoder:
    """The calls of a tokenizer that this project uses.

    lead: ids in front of every dialogue; None: find them.
    """

    def __init__(self, tokenizer: Any, *, lead: Sequence[int] | None = None) -> None:
        self._tokenizer = tokenizer
        self.lead = list(self._own_lead() if lead is None else lead)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that starts a dialogue. Special tokens in the text are recognised."""
        ids = self.alone(text)
        return ids if ids[: len(self.lead)] == self.lead else self.lead + ids

    def alone(self, text: str) -> list[int]:
        """Ids of a text alone."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def message(self, before: str, text: str, *, generated: Collection[int] = ()) -> list[int]:
        """Ids of a text that starts a dialogue: `before`, which is markup, then the text of a message.

        A marker in the message is text like any other, unless its id is in `generated`: a model that writes
        about "<eos>" has written no such token.
        """
        head, *rest = self.cut_markers(text, generated)
        return self.joined([before + head, *rest])

    def joined(self, parts: Sequence[str]) -> list[int]:
        """Ids of a text that starts a dialogue, in parts between which the tokenizer joins nothing."""
        ids = self.encode(parts[0])
        for part in parts[1:]:
            ids += self._continued(part)
        return ids

    def cut_markers(self, text: str, generated: Collection[int] = ()) -> Iterator[str]:
        """The text in parts of which none contains a marker: each is cut behind its first character."""
        markers = [(i, marker) for i, marker in self.markers.items() if len(marker) > 1 and marker in text]
        foreign = [re.escape(marker) for i, marker in markers if i not in generated]
        if foreign:
            expression = re.compile("|".join(foreign))
            while found := expression.search(text):
                yield text[: found.start() + 1]
                text = text[found.start() + 1 :]
        yield text

    def _continued(self, part: str) -> list[int]:
        """Ids of a part of a text that does not start it: without a word border in front."""
        for anchor in _ANCHORS:
            head, whole = self.encode(anchor), self.encode(anchor + part)
            if len(head) > len(self.lead) and whole[: len(head)] == head:
                return whole[len(head) :]
        return self.alone(part)

    def piece(self, before: str, piece: str) -> tuple[int, ...]:
        """Ids of `piece` between two arbitrary messages. before: the text in front of the first message.

        An empty `before` means that the piece starts the dialogue.
        """
        for ending in _ENDINGS if before else ("",):
            head = self.encode(before + ending) if before else []
            grown = [self.encode(before + ending + piece + opening) for opening in _OPENINGS]
            columns = zip(*grown, strict=False)
            common = [column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns)]
            if common[: len(head)] != head:
                continue  # the tokenizer joins this ending with the piece; it may not join another one
            beyond = self._tokenizer.decode(grown[0][len(common) :])
            if beyond.strip().lower() != _OPENINGS[0].lower():  # more than white space is lost
                common = self.encode(before + ending + piece)
            return tuple(common[len(head) :])
        return tuple(self.alone(piece))

    def keeps_blanks(self, text: str, ids: Sequence[int]) -> bool:
        """Whether `ids`, the result of `piece` for this text, include the white space at its end."""
        return bool(self._tokenizer.decode(list(ids)) == self._tokenizer.decode(self.encode(text)))

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that the tokenizer declares special."""
        added = self._added()
        flagged = {token_id for token_id, token in added.items() if getattr(token, "special", False)}
        # A name without a token in the vocabulary has no id.
        return tuple(sorted(flagged | {i for i in self._tokenizer.all_special_ids if i is not None}))

    @cached_property
    def markers(self) -> dict[int, str]:
        """Id -> text of every token that can be a marker: special, or added and not only white space."""
        added = {token_id: str(token) for token_id, token in self._added().items()}
        special = {token_id: self._tokenizer.convert_ids_to_tokens(token_id) for token_id in self.special_ids}
        return {token_id: text for token_id, text in {**added, **special}.items() if text and text.strip()}

    @cached_property
    def _textless(self) -> tuple[frozenset[int], int]:
        """Ids that the tokenizer leaves out, and the first behind all that it has."""
        size = max([len(self._tokenizer), *(i + 1 for i in (*self.special_ids, *self._added()))])
        tokens = self._tokenizer.convert_ids_to_tokens(list(range(size)))
        return frozenset(i for i, token in enumerate(tokens) if token is None), size

    def knows(self, token_ids: Sequence[int]) -> bool:
        """Whether the tokenizer has a token for each of the ids. A model may have more ids than that."""
        left_out, size = self._textless
        return max(token_ids, default=-1) < size and left_out.isdisjoint(token_ids)

    @cached_property
    def blank_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that are only white space."""
        likely = [i for token, i in self._tokenizer.get_vocab().items() if _BLANK.fullmatch(token)]
        return tuple(sorted(i for i in likely if not self._tokenizer.decode([i]).strip()))

    def joins(self, texts: Sequence[str], pieces: Sequence[Sequence[int]]) -> list[str]:
        """Sample messages at whose borders the whole text has other ids than its parts.

        texts: before, between and after the messages of a dialogue. pieces: the ids of the texts.
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

    def _own_lead(self) -> list[int]:
        plain = self.alone("a")
        full = list(self._tokenizer("a")["input_ids"])
        starts = range(len(full) - len(plain) + 1)
        return next((full[:start] for start in starts if full[start : start + len(plain)] == plain), [])

    def _added(self) -> dict[int, Any]:
        return dict(getattr(self._tokenizer, "added_tokens_decoder", {}))
