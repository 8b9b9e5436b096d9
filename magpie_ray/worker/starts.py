"""What rows start with, made of what is read for them: the input of a row, or a row of a source."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from magpie_ray.chat_format import ChatFormat, message_ids
from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.chat_format.format import SystemPrefix
from magpie_ray.chat_format.of_model import Prefixes
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.generation.recipe import Start
from magpie_ray.inputs.blocks import InputBlocks
from magpie_ray.preflight.sources import prompt_of
from magpie_ray.sources.reader import SourceReader, SourceRow
from magpie_ray.types import Input, Message, SystemPrompt

PrefixesOf = Callable[[Sequence[str | None]], Sequence[SystemPrefix]]


def make_prefixes_of(prefixes: Prefixes, form: ChatFormat) -> PrefixesOf:
    """A function that makes the prefixes of system prompts; None is no prompt."""

    def prefixes_of(prompts: Sequence[str | None]) -> list[SystemPrefix]:
        made = iter(prefixes.of([prompt for prompt in prompts if prompt is not None]))
        return [form.start(None) if prompt is None else next(made) for prompt in prompts]

    return prefixes_of


class InputStarts:
    """Rows start with the system prompt of their input. One thread at a time calls `load`."""

    def __init__(self, blocks: InputBlocks, prefixes_of: PrefixesOf) -> None:
        self._blocks, self._prefixes_of = blocks, prefixes_of

    def load(self, rows: Sequence[int]) -> list[Start]:
        """What these rows start with, in their order. StorageError when it can't be read."""
        loaded = self._blocks.load(rows)
        prefixes = self._prefixes_of([one.prompt for one in loaded])
        return [_start(one.prompt, prefix, one.input) for one, prefix in zip(loaded, prefixes, strict=True)]

    def characters(self, loaded: Start) -> int:
        return _characters(loaded)

    def close(self) -> None:
        self._blocks.close()


class SourceStarts:
    """Rows start with the messages of a source, up to the user's last one.

    Each row of the source is loaded for config.n rows of the recipe, next to each other.
    """

    def __init__(
        self,
        reader: SourceReader,
        prefixes_of: PrefixesOf,
        *,
        config: AnswerConfig,
        form: ChatFormat,
        encoder: Encoder,
    ) -> None:
        self._reader, self._prefixes_of, self._config = reader, prefixes_of, config
        self._form, self._encoder = form, encoder

    def load(self, rows: Sequence[int]) -> list[Start]:
        """What these rows of the recipe start with, in their order. What SourceReader raises; FormatError."""
        wanted = [row // self._config.n for row in rows]
        unique = list(dict.fromkeys(wanted))
        loaded = self._reader.load(unique)
        prompts = [prompt_of(self._config, row) for row in loaded]
        prefixes = self._prefixes_of(prompts)
        starts = {
            row.row_id: self._start(row, prompt, prefix)
            for row, prompt, prefix in zip(loaded, prompts, prefixes, strict=True)
        }
        return [starts[row_id] for row_id in wanted]

    def characters(self, loaded: Start) -> int:
        return _characters(loaded)

    def close(self) -> None:
        self._reader.close()

    def _start(self, row: SourceRow, prompt: str | None, prefix: SystemPrefix) -> Start:
        # What is answered is the last message of the user; an answer that stands there already is left out.
        asked = row.messages if row.messages[-1][0] == "user" else row.messages[:-1]
        texts = [(role, text.strip()) for role, text in asked]
        given = tuple(
            Message(role=role, text=text, finish_reason="stop", prompt_tokens=0, completion_tokens=0)
            for role, text in texts
        )
        ids = tuple(
            message_ids(self._encoder, self._form, text, index=index, prefix=prefix)
            for index, (_, text) in enumerate(texts)
        )
        start = _start(prompt, prefix, Input(input_id=row.row_id, kept=row.kept))
        return replace(start, given=given, given_ids=ids)


def _characters(start: Start) -> int:
    """Of the prompt and the given messages; a byte of a kept column counts as one."""
    prompt = len(start.system_prompt.text) if start.system_prompt else 0
    prompt += sum(len(message.text) for message in start.given)
    kept = start.input.kept if start.input else None
    return prompt + (kept.nbytes if kept is not None else 0)


def _start(prompt: str | None, prefix: SystemPrefix, one: Input) -> Start:
    return Start(None if prompt is None else SystemPrompt(text=prompt), prefix.ids, prefix, one)
