"""Rows to score, and a tokenizer of the bundled model with its chat format."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from magpie_ray.chat_format.format import ChatFormat
from magpie_ray.chat_format.of_model import model_format
from magpie_ray.model.tokenizer import LoadedTokenizer, load_tokenizer

TINY_CHAT = str(files("magpie_ray").joinpath("tiny_chat"))


@dataclass(frozen=True)
class PlainRow:
    """A row of a source, as far as scoring reads it."""

    row_id: int
    messages: tuple[tuple[str, str], ...] = ()
    system_prompt: str | None = None
    responses: tuple[str, ...] = ()
    kept: None = None


def dialogue(row_id: int, *texts: str, responses: tuple[str, ...] = ()) -> PlainRow:
    """A row of these messages, the first from the user."""
    roles = ("user", "assistant")
    messages = tuple((roles[index % 2], text) for index, text in enumerate(texts))
    return PlainRow(row_id=row_id, messages=messages, responses=responses)


@cache
def tiny_tokenizer() -> LoadedTokenizer:
    return load_tokenizer(TINY_CHAT)


@cache
def tiny_format() -> ChatFormat:
    return model_format(tiny_tokenizer(), own_format=None, thinking=False)
