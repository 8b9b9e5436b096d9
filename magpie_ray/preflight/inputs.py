"""The inputs of a build before it begins: read once, checked, and compared with those that it began with.

Invariant: whatever is wrong with an input is told before an engine starts, with its file and its line or row.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from magpie_ray.chat_format.format import ChatFormat
from magpie_ray.chat_format.of_model import Prefixes
from magpie_ray.chat_format.prefixes import SPECIMEN
from magpie_ray.config.loading import JobConfig
from magpie_ray.config.schema import Config
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import COLUMNS
from magpie_ray.errors import (
    BuildMismatchError,
    ConfigError,
    FormatError,
    InterruptedJobError,
    PreflightError,
)
from magpie_ray.inputs.copy import WEIGHT, CopyIndex, ensure_copy, read_files
from magpie_ray.inputs.overlap import would_read
from magpie_ray.inputs.readers import RawBatch, Wanted
from magpie_ray.inputs.scan import InputSet, changes, is_blank, scan
from magpie_ray.inputs.source import Source, open_source
from magpie_ray.model.tokenizer import LoadedTokenizer
from magpie_ray.storage.storage import Storage
from magpie_ray.types import SystemPrompt

_SHOWN_CHANGES = 8


def format_for_inputs(derived: Callable[[tuple[SystemPrompt, ...]], ChatFormat]) -> ChatFormat:
    """The format with a specimen in place of the inputs' system prompts, where it takes any.

    derived: makes the format with these prompts.
    """
    specimen = (SystemPrompt(text=SPECIMEN),)
    try:
        bare = derived(())
    except FormatError:  # the template may demand a system message
        return derived(specimen)
    return derived(specimen) if bare.takes_system else bare


def prefixes_of(config: JobConfig, loaded: LoadedTokenizer, form: ChatFormat) -> Prefixes:
    """The prefixes of the inputs' system prompts. form: as resolve_build has derived it."""
    return Prefixes(
        loaded,
        form,
        own_format=config.model.chat_format,
        pre_query_template=config.model.pre_query_template,
        thinking=config.model.thinking,
    )


def input_warnings(config: Config, inputs: InputSet) -> list[str]:
    """What the user may not expect of these inputs."""
    warnings = []
    if config.system_prompt is not None:
        warnings.append(
            f"system_prompt has no effect: the column {config.inputs.system_prompt} of the inputs gives each "
            "row its system prompt"
        )
    if not inputs.prompts:
        warnings.append(f"no input has a system prompt (inputs.system_prompt: {config.inputs.system_prompt})")
    if config.num_rows < inputs.number and config.inputs.pick == "in_order":
        warnings.append(
            f"num_rows is {config.num_rows:,}: of {inputs.number:,} inputs only the first "
            f"{config.num_rows:,} are used until the build grows"
        )
    return warnings


def scan_inputs(config: Config, form: ChatFormat, prefixes: Prefixes, *, room: int | None) -> InputSet:
    """Read all inputs of the config. form: derived with SPECIMEN. room: tokens of the context, if known.

    ConfigError, FormatError or PreflightError for what is wrong with them.
    """
    _check_names(config)
    source = _source(config)
    return scan(source, _wanted(config), _check(form, prefixes, room))


def copy_inputs(
    config: Config, inputs: InputSet, storage: Storage, *, stop_requested: Callable[[], bool] = lambda: False
) -> CopyIndex:
    """Copy the inputs into the build at the output, unless they are there.

    InterruptedJobError once a stop is requested.
    """

    def go_on(_: RawBatch) -> None:
        if stop_requested():
            raise InterruptedJobError(
                "stopped while the inputs were copied into the build; the same command copies them again"
            )

    return ensure_copy(storage, _source(config), _wanted(config), inputs, check=go_on)


def check_same_inputs(existing: BuildRecord, inputs: InputSet, storage: Storage) -> None:
    """BuildMismatchError names the files that differ from those that the build began with."""
    recorded = existing.identity.get("inputs.content")
    if recorded is None or recorded == inputs.content:
        return
    before = read_files(storage)
    found = sorted(changes(before, inputs.files)) if before else []
    if found:
        more = f"\n  and {len(found) - _SHOWN_CHANGES:,} more" if len(found) > _SHOWN_CHANGES else ""
        raise BuildMismatchError(
            f"{storage.url} was begun with other inputs than inputs.path names now:\n"
            + "\n".join(f"  {change}" for change in found[:_SHOWN_CHANGES])
            + f"{more}\nA build never mixes two sets of inputs: bring the files back as they were, and with "
            "them inputs.system_prompt, keep and weight, or choose another output.path"
        )


def _source(config: Config) -> Source:
    path = config.inputs.path
    assert path is not None, "only a config with inputs asks for them"
    if would_read(path, config.output.path):
        raise ConfigError(
            f"output.path: got {config.output.path}, which lies in inputs.path ({path}): the inputs would "
            "change as rows are written. Choose a place outside"
        )
    return open_source("inputs.path", path, config.inputs.storage_options)


def _wanted(config: Config) -> Wanted:
    inputs = config.inputs
    return Wanted(prompt=inputs.system_prompt, keep=tuple(inputs.keep), weight=inputs.weight)


def _check_names(config: Config) -> None:
    # Some readers do not tell capital letters from small ones.
    known = {name.lower() for name in (*COLUMNS, WEIGHT)}
    seen: dict[str, str] = {}
    for name in config.inputs.keep:
        if name.lower() in known:
            raise ConfigError(
                f"inputs.keep: got {name}, which is the name of a column that rows have anyway: rename "
                f"the column in the inputs. Taken are {', '.join(COLUMNS)}"
            )
        if name.lower() in seen:
            raise ConfigError(
                f"inputs.keep: got {seen[name.lower()]} and {name}, which many readers take for one name: "
                "rename one of them"
            )
        seen[name.lower()] = name


def _check(form: ChatFormat, prefixes: Prefixes, room: int | None) -> Callable[[RawBatch], None]:
    """The check of a batch of inputs."""
    around = len(form.prefix(SPECIMEN)) if form.system_prefixes else len(form.prefix(None))

    def check(batch: RawBatch) -> None:
        blank = is_blank(batch.prompts)
        if prefixes.refuses_none and pc.any(blank).as_py():
            index = blank.to_pylist().index(True)
            raise FormatError(f"{batch.place(index)} has no system prompt, and {prefixes.refuses_none}")
        texts = batch.prompts.filter(pc.invert(blank)).to_pylist()
        try:
            prefixes.check(texts)
        except (FormatError, ConfigError):
            _name_the_row(batch, prefixes)
            raise
        if room is not None:
            _check_room(batch, prefixes, room, around)

    return check


def _name_the_row(batch: RawBatch, prefixes: Prefixes) -> None:
    """Raises the error of the first prompt that is refused, with its place."""
    for index, text in enumerate(batch.prompts.to_pylist()):
        if text and text.strip():
            try:
                prefixes.check([text])
            except (FormatError, ConfigError) as exc:
                raise type(exc)(f"{batch.place(index)}: {exc}") from exc


def _check_room(batch: RawBatch, prefixes: Prefixes, room: int, around: int) -> None:
    """ConfigError for a prompt that leaves no room for a message in the context."""
    # A token stands for one byte at least, so most prompts need not be tokenized.
    long = pc.greater_equal(pc.fill_null(pc.binary_length(batch.prompts), 0), pa.scalar(room - around))
    for index in pc.indices_nonzero(long).to_pylist():
        text = batch.prompts[index].as_py()
        if not text.strip():
            continue
        [prefix] = prefixes.of([text])
        if len(prefix.ids) >= room:
            raise ConfigError(
                f"{batch.place(index)}: the system prompt makes a prompt of {len(prefix.ids):,} tokens, and "
                f"the context has {room:,} (engine.max_model_len, or the model's), which leaves no room for "
                "a message: shorten the text, or raise the context"
            )


def require_index(index: CopyIndex | None, inputs: InputSet, storage: Storage) -> CopyIndex:
    """The index of the copy. PreflightError where the build has none, or one of other inputs."""
    if index is None or index.content != inputs.content:
        raise PreflightError(
            f"{storage.url} has no copy of the build's inputs, which the driver has written: does this node "
            "see another folder or volume?"
        )
    return index
