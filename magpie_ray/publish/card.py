"""The dataset card of a build: README.md beside data/, as the Hugging Face hub and `datasets` read it.

What always holds: what the user has added stays, be it in the front matter (a licence, languages) or in the
text outside two marks; between the marks, and under the keys that follow from the build, everything is
written anew. No secret is in it: the config comes as it is recorded.
"""

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import yaml

from magpie_ray.counters import Tally
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.parquet import TableFormat
from magpie_ray.dataset.verify import rows_wanted
from magpie_ray.errors import ReportError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage
from magpie_ray.types import PartitionRecord

CARD_KEY = "README.md"

_BEGIN = "<!-- magpie-ray writes what follows anew with every report -->"
_END = "<!-- what stands below is kept -->"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)

# For the user to fill: nobody else knows what the model's own licence allows.
_UNKNOWN_LICENCE = "unknown"
_ASK_FOR_LICENCE = (
    "Before this is published: put a licence in the place of `unknown` in the front matter. What the licence "
    "of {model} says of its outputs applies to these texts."
)
# The hub's names for how many rows there are, by the first number that is too many.
_SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
    100_000_000: "10M<n<100M",
    1_000_000_000: "100M<n<1B",
    10_000_000_000: "1B<n<10B",
    100_000_000_000: "10B<n<100B",
    1_000_000_000_000: "100B<n<1T",
}
_MEANINGS = {
    "row_id": "0, 1, 2, ...: the same for a row whatever machines made it",
    "conversation": "messages in turn, from the user's on",
    "instruction": "the user's message",
    "response": "the assistant's message",
    "reasoning": "what the assistant wrote before each of its messages",
    "system_prompt": "what the row was generated under; null for none",
    "system_prompt_key": "the name of that prompt in the config",
    "sampling_key": "which of the config's sampling settings",
    "model_name": "the model",
    "finish_reasons": "how each generated message ended: `stop`, or `length` where it was cut",
    "prompt_tokens": "tokens before each generated message",
    "completion_tokens": "tokens of each generated message",
    "attempt": "which attempt at the row was accepted, from 1",
}


def write_card(storage: Storage, *, records: Sequence[PartitionRecord] | None = None) -> str:
    """Write the card of the build at this output, around what the user has added; returns where it is.

    records: what is committed, where that is known. PreflightError when there is no build; ReportError when
    the card that is there can't be understood; StorageError.
    """
    record = build_record.require_build(storage)
    if records is None:
        records = manifest.read_committed(storage, record)
    storage.replace(CARD_KEY, card_text(storage, record, records).encode())
    return storage.display(CARD_KEY)


def card_text(storage: Storage, record: BuildRecord, records: Sequence[PartitionRecord]) -> str:
    """The card of this build as it is now, around what the user has added to the one that is there.

    ReportError when that one can't be understood; StorageError.
    """
    try:
        present = storage.read(CARD_KEY).decode()
    except ObjectNotFoundError:
        present = ""
    except UnicodeDecodeError as exc:
        raise ReportError(f"{storage.display(CARD_KEY)} is not UTF-8 text: mend it, or move it away") from exc
    wanted = rows_wanted(run_records.read_runs(storage), records)
    try:
        return render_card(record, records, num_rows=wanted, present=present)
    except ReportError as exc:
        raise ReportError(f"{storage.display(CARD_KEY)}: {exc}") from exc


def render_card(
    record: BuildRecord, records: Sequence[PartitionRecord], *, num_rows: int, present: str = ""
) -> str:
    """The card's text, with what the user has added to the one that is there.

    ReportError when that one's front matter is no YAML.
    """
    front, text = _parts(present)
    tally = Tally.sum(Tally.of_record(committed) for committed in records)
    front = {**_defaults(record), **front, **_facts(record, tally.rows)}
    if _BEGIN in text and _END in text:
        before, rest = text.split(_BEGIN, 1)
        after = rest.split(_END, 1)[1]
    elif text.strip():
        before, after = "", f"\n\n{text.strip()}\n"
    else:
        before, after = "", "\n"
    body = "\n\n".join(_body(record, tally, num_rows=num_rows, licence=front["license"]))
    matter = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{matter}---\n{before or chr(10)}{_BEGIN}\n\n{body}\n\n{_END}{after}"


def _parts(present: str) -> tuple[dict[str, object], str]:
    """Front matter and text of a card."""
    found = _FRONT_MATTER.match(present)
    if not found:
        return {}, present
    try:
        front = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as exc:
        raise ReportError(f"what stands between its first lines of --- is no YAML ({exc}): mend it") from exc
    if not isinstance(front, dict):
        raise ReportError("what stands between its first lines of --- is no mapping of keys: mend it")
    return front, present[found.end() :]


def _defaults(record: BuildRecord) -> dict[str, object]:
    """What the front matter says unless the user says otherwise."""
    return {
        "license": _UNKNOWN_LICENCE,
        "pretty_name": f"Magpie rows by {_model(record)}",
        "task_categories": ["text-generation"],
        "tags": ["magpie", "magpie-ray", "synthetic"],
        **({"language": languages} if (languages := _languages(record)) else {}),
    }


def _facts(record: BuildRecord, rows: int) -> dict[str, object]:
    """What follows from the build."""
    schema = TableFormat.schema_of(record.columns)
    return {
        "size_categories": [next((name for end, name in _SIZES.items() if rows < end), "n>1T")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
        "dataset_info": {"features": [{"name": field.name, **_feature(field.type)} for field in schema]},
    }


def _feature(kind: pa.DataType) -> dict[str, object]:
    """A column's type as the front matter writes it."""
    if not pa.types.is_list(kind):
        return {"dtype": str(kind)}
    if pa.types.is_struct(kind.value_type):
        return {"list": [{"name": field.name, **_feature(field.type)} for field in kind.value_type]}
    return {"list": str(kind.value_type)}


def _languages(record: BuildRecord) -> list[str]:
    """Those that messages were required to be in."""
    acceptance = record.config.get("acceptance")
    rules = acceptance.get("rules") if isinstance(acceptance, Mapping) else None
    language = rules.get("language") if isinstance(rules, Mapping) else None
    if not isinstance(language, Mapping):
        return []
    given = [language.get("is"), *(language.get("by_prompt") or {}).values()]
    flat = [code for entry in given for code in (entry if isinstance(entry, list) else [entry])]
    return sorted({code for code in flat if isinstance(code, str)})


def _model(record: BuildRecord) -> str:
    return str(record.identity.get("model.name", "a chat model"))


def _body(record: BuildRecord, tally: Tally, *, num_rows: int, licence: object) -> list[str]:
    model, commit = _model(record), record.identity.get("model.commit")
    revision = f" at commit `{commit}`" if commit else ""
    rows = f"{tally.rows:,} rows"
    if tally.rows < num_rows:
        rows += f" of {num_rows:,}: the build is not complete yet"
    rejected = sum(tally.rejected.values())
    reasons = ", ".join(f"{times:,} {reason}" for reason, times in sorted(tally.rejected.items()))
    config = yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True)
    schema = TableFormat.schema_of(record.columns)
    return [
        f"# Magpie rows by {model}",
        *([_ASK_FOR_LICENCE.format(model=model)] if licence == _UNKNOWN_LICENCE else []),
        f"{rows}, written by `{model}`{revision} from nothing but its chat template, as Magpie "
        "([arXiv 2406.08464](https://arxiv.org/abs/2406.08464)) does it: given what stands before a user's "
        "message, an aligned chat model writes the message itself; sent back, it answers. "
        f"Generated with magpie-ray: {tally.attempts:,} attempts, {rejected:,} rejected"
        + (f" ({reasons})" if reasons else "")
        + f"; {tally.tokens:,} tokens.",
        "```python\nfrom datasets import load_dataset\n\n"
        'rows = load_dataset("path/or/hub/id", split="train")\n```',
        "## Columns",
        "| column | type | meaning |\n|---|---|---|\n"
        + "\n".join(
            f"| `{field.name}` | `{_type_name(field.type)}` | {_MEANINGS[field.name]} |" for field in schema
        ),
        "## How it was made",
        f"Build `{record.fingerprint}`, begun {record.created}. The config in full, secrets left out:",
        _fenced(config, "yaml"),
        "## Limits",
        "- All texts are a model's. They may be wrong, biased or unsafe, and state as facts what the model "
        "made up; nobody has read them all.\n"
        "- Instructions follow what the model saw in training: topics and languages are spread as that "
        "was, unless system prompts steer them.\n"
        "- Exact duplicates are counted in the report (`_magpie/report.html`) and not removed.",
    ]


def _type_name(kind: pa.DataType) -> str:
    if not pa.types.is_list(kind):
        return str(kind)
    inner = kind.value_type
    if pa.types.is_struct(inner):
        return f"list<struct<{', '.join(f'{field.name}: {field.type}' for field in inner)}>>"
    return f"list<{inner}>"


def _fenced(text: str, language: str) -> str:
    """A code block that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"
