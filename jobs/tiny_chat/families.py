"""Chat formats in the manner of other model families, for tiny_chat to be trained on instead of its own.

Owns: what their tokens are called, and what each begins as. Their templates are Jinja files, in templates/.
What always holds: no format has a token that its family lacks, so where that ends no message, nothing does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One chat format.

    specials: its special tokens, each with the tokens of tiny_chat that it stands for: its embedding begins
    as their mean. marks: the same for new tokens that are not special. words: ordinary tokens that begin as
    others, because they come where those did. ends: what generation_config.json lists as ends of sequence.
    spaced: messages begin with a space, which is joined with their first word. rewrites_history: a round is
    written otherwise once another follows. no_thought: what answers begin with that are not thought about;
    "" where none is.
    """

    name: str
    specials: dict[str, tuple[str, ...]]
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    bos: str | None = None
    eos: str
    pad: str
    ends: tuple[str, ...]
    spaced: bool = False
    rewrites_history: bool = False
    no_thought: str = ""

    @property
    def template(self) -> str:
        """Its chat template."""
        return (_TEMPLATES / f"{self.name}.jinja").read_text()


_FAMILIES = (
    Family(
        name="chatml",
        specials={
            "<|endoftext|>": ("<|end_of_text|>",),
            "<|im_start|>": ("<|start_header_id|>",),
            "<|im_end|>": ("<|eot_id|>",),
        },
        words={"\n": "\n\n"},
        eos="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
    ),
    # System text goes into the first user message. The end of a turn is in none of the lists of ends.
    Family(
        name="gemma",
        specials={
            "<pad>": ("<|end_of_text|>",),
            "<eos>": ("<|end_of_text|>",),
            "<bos>": ("<|begin_of_text|>",),
            "<start_of_turn>": ("<|start_header_id|>",),
            "<end_of_turn>": ("<|eot_id|>",),
        },
        words={"\n": "\n\n", "model": "assistant"},
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        ends=("<eos>",),
    ),
    # No token ends the user's message: what follows it does.
    Family(
        name="deepseek",
        specials={
            "<｜begin▁of▁sentence｜>": ("<|begin_of_text|>",),
            "<｜end▁of▁sentence｜>": ("<|eot_id|>",),
            "<｜▁pad▁｜>": ("<|end_of_text|>",),
            "<｜User｜>": ("user", "\n\n"),
            "<｜Assistant｜>": ("<|eot_id|>", "assistant", "\n\n"),
        },
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        pad="<｜▁pad▁｜>",
        ends=("<｜end▁of▁sentence｜>",),
    ),
    # System text goes into the last user message, so it moves from round to round. The model writes the space
    # between a marker and the message.
    Family(
        name="mistral",
        specials={
            "<unk>": ("<|end_of_text|>",),
            "<s>": ("<|begin_of_text|>",),
            "</s>": ("<|eot_id|>",),
            "[INST]": ("user", "\n\n"),
            "[/INST]": ("<|eot_id|>", "assistant", "\n\n"),
        },
        bos="<s>",
        eos="</s>",
        pad="<unk>",
        ends=("</s>",),
        spaced=True,
        rewrites_history=True,
    ),
    # Answers begin with a block of reasoning, an empty one without thinking. Earlier answers have none.
    Family(
        name="qwen3",
        specials={
            "<|endoftext|>": ("<|end_of_text|>",),
            "<|im_start|>": ("<|start_header_id|>",),
            "<|im_end|>": ("<|eot_id|>",),
        },
        marks={"<think>": ("<|end_header_id|>",), "</think>": ("<|end_header_id|>",)},
        words={"\n": "\n\n"},
        eos="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        rewrites_history=True,
        no_thought="<think>\n\n</think>\n\n",
    ),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _FAMILIES}
