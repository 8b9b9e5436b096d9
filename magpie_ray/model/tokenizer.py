"""Tokenizers and their chat templates, loaded from a folder or from Hugging Face.

Owns: what can go wrong while a tokenizer is loaded, with the remedy for each case, and where a chat template
may lie. Importing this module imports nothing heavy.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from magpie_ray.errors import ConfigError, ModelError
from magpie_ray.model import side_files
from magpie_ray.model.mistral_tokenizer import MistralTokenizer
from magpie_ray.model.side_files import Find

_GENERATION_CONFIG = "generation_config.json"
_MAX_ID = 2**31 - 1


class LoadedTokenizer(NamedTuple):
    """A tokenizer, and the end-of-sequence ids in its model's generation_config.json.

    warnings: files of the model that are broken and can be done without. vocabulary: ids that the model has,
    by its config.json; None where that does not say it.
    """

    tokenizer: Any
    eos_token_ids: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    vocabulary: int | None = None


def load_tokenizer(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    template_name: str | None = None,
) -> LoadedTokenizer:
    """The tokenizer of a local folder or a Hugging Face id; without network, from the cache.

    template_name: which of the model's chat templates; None: the default one.
    Raises ModelError, which names the model and the remedy, when the tokenizer can't be loaded or another
    file of the model keeps vLLM from starting; ConfigError when no template has that name.
    """
    from transformers import AutoTokenizer  # takes seconds, and loads torch where it is installed

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code
        )
        tokenizer("a")  # some wrong values show only then
    except Exception as exc:  # tokenizers raises plain Exceptions, a model's own code anything
        raise ModelError(f"The tokenizer of model {name!r} can't be loaded: {_remedy(exc, name)}") from exc
    # transformers loads mistral-common's tokenizer for a model with a tekken.json.
    if hasattr(tokenizer, "tokenizer") and type(tokenizer).__name__.startswith("MistralCommon"):
        tokenizer = MistralTokenizer(tokenizer)
    find = side_files.finder(name, revision)
    try:
        ends, broken = _eos_token_ids(find)
    except ModelError as exc:
        raise ModelError(f"Model {name!r}: {exc}. Mend the file or remove it.") from exc
    # Each file of a repository is a request, so only those that matter are looked for there.
    looked_at: tuple[str, ...] = side_files.SMALL_FILES if Path(name).is_dir() else ()
    if not tokenizer.chat_template:
        looked_at = looked_at or side_files.TEMPLATE_HOLDERS
        tokenizer.chat_template = _template_beside(find)
    broken += [f"{problem}: left out" for problem in side_files.problems(find, looked_at)]
    if template_name is not None:
        tokenizer.chat_template = _named(tokenizer.chat_template, template_name)
    return LoadedTokenizer(tokenizer, ends, tuple(broken), _vocabulary(find))


def _eos_token_ids(find: Find) -> tuple[tuple[int, ...], list[str]]:
    """The ids, and what is wrong with the file. vLLM does without a file that is no JSON at all.

    ModelError where no engine would start with the file: it holds no object, or a fraction as the id.
    """
    path = find(_GENERATION_CONFIG)
    if path is None:
        return (), []
    try:
        side_files.parse(path)
    except ModelError as exc:
        return (), [f"{exc}: the end-of-sequence ids that it may list are not known"]
    ids = side_files.read_object(path).get("eos_token_id")
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    known = tuple(i for i in listed if type(i) is int and 0 <= i <= _MAX_ID)
    if len(known) == len(listed):
        return known, []
    problem = f"{path.name}: eos_token_id is {ids!r}, must be a token id or a list of token ids"
    if isinstance(ids, float):
        raise ModelError(problem)
    return known, [f"{problem}: what is no token id is left out"]


def _vocabulary(find: Find) -> int | None:
    with suppress(ModelError):
        if path := find("config.json"):
            fields = side_files.read_object(path)
            text = fields.get("text_config")
            size = {**fields, **(text if isinstance(text, dict) else {})}.get("vocab_size")
            return size if type(size) is int and size > 0 else None
    return None


def _template_beside(find: Find) -> Any:
    """The chat template in the files of a processor, where models that read images keep it."""
    for name in side_files.TEMPLATE_HOLDERS:
        with suppress(ModelError):  # broken, which `problems` says
            template = side_files.read_object(path).get("chat_template") if (path := find(name)) else None
            if isinstance(template, list) and all(isinstance(entry, dict) for entry in template):
                template = {entry.get("name"): entry.get("template") for entry in template}
            if template:
                return template
    return None


def _named(template: Any, name: str) -> Any:
    known = template if isinstance(template, dict) else {"default": template} if template else {}
    if name not in known:
        what = f"the model has {', '.join(map(repr, known))}" if known else "the model has no chat template"
        raise ConfigError(f"model.chat_template_name: got {name!r}, but {what}")
    return known[name]


def _remedy(exc: Exception, name: str) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
    if "trust_remote_code" in str(exc):
        return f"{lines[0]} Set model.trust_remote_code: true if you trust the code in that repository."
    if isinstance(exc, ImportError):
        return f"{lines[0]} Install what is missing."
    if Path(name).is_dir():
        reason = _broken_files(Path(name)) or f"{type(exc).__name__}: {' '.join(lines[:2])}"
        return f"{reason}. Mend the folder, or copy its tokenizer files from the model's source again."
    return (
        f"{lines[0]} Check model.name (a Hugging Face id or an existing folder with tokenizer files), "
        "model.revision, access (HF_TOKEN for gated models) and the network; offline, only local folders and "
        "models in the cache can be used."
    )


def _broken_files(folder: Path) -> str | None:
    """What is wrong with the files of a tokenizer, as a clause; None: none is broken by itself."""
    named = [str(path.relative_to(folder)) for path in folder.glob("additional_chat_templates/*.jinja")]
    files = (*side_files.SMALL_FILES, *side_files.VOCABULARIES, *sorted(named))
    if problem := next(side_files.problems(side_files.finder(str(folder), None), files), None):
        return problem
    kinds = ("tokenizer.json", "tekken.json", "*.model", "vocab.*", "*.tiktoken", "*.py")
    if not any(True for kind in kinds for _ in folder.glob(kind)):
        return "it has no tokenizer (tokenizer.json, tokenizer.model, tekken.json)"
    return None
