"""Whole dialogues as token ids, for a model that reads them to the end, such as a reward model."""

import datetime
from collections.abc import Sequence
from typing import Any

from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.chat_format.template import open_template

# Stands in a rendered dialogue where a message is cut; in Unicode's area for private use.
_CUT = "\ue0c7"


class Dialogues:
    """The dialogues of one tokenizer's chat template. FormatError where it has none.

    date: the date that a dated template writes; None for today. The attribute is None for a template that
    writes none.
    """

    def __init__(self, tokenizer: Any, *, date: datetime.date | None = None) -> None:
        self._encoder = Encoder(tokenizer)
        self._template, self.date = open_template(tokenizer, date=date, variables={}, foreign=())

    def ids(self, contents: Sequence[str], *, system_prompt: str | None = None) -> list[int]:
        """Ids of a dialogue that begins with the user and ends with the assistant.

        They are those of `apply_chat_template`, behind the token that the tokenizer itself puts in front. A
        marker in a message is text like any other. FormatError where the template refuses the dialogue.
        """
        cut = _CUT
        while any(cut in content for content in contents):
            cut += _CUT
        written = [cut.join(self._encoder.cut_markers(content)) for content in contents]
        return self._encoder.joined(self._template.render(system_prompt or None, written).split(cut))
