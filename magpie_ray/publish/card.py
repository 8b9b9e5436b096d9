"""The dataset card of a build: README.md beside data/, read by the Hugging Face hub and by `datasets`.

Invariants: a rewritten card keeps every key that the user added to its front matter (a licence, languages)
and all text outside two marks. The text between the marks and the keys that follow from the build are
replaced. A card holds no secrets, because it shows the recorded config, which is redacted.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from magpie_ray.counters import Tally
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.answer_columns import answer_columns_by_name
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import COLUMNS
from magpie_ray.dataset.layout import CARD_KEY, DATA_FILES, REPORT_KEY
from magpie_ray.dataset.score_columns import score_meanings
from magpie_ray.dataset.selection_record import SelectionRecord, read_selection
from magpie_ray.errors import ReportError
from magpie_ray.publish import card_front
from magpie_ray.publish.curated_card import curated_meaning, curated_title, selection_body
from magpie_ray.storage.storage import ObjectNotFoundError, Storage
from magpie_ray.types import PartitionRecord
from magpie_ray.utils.text import fenced

_BEGIN = "<!-- magpie-ray writes what follows anew with every report -->"
_END = "<!-- what stands below is kept -->"

# The user has to replace it: only the user knows what the model's own licence allows.
_UNKNOWN_LICENCE = "unknown"
_ASK_FOR_LICENCE = (
    "Before this is published: put a licence in the place of `unknown` in the front matter. What the licence "
    "of {model} says of its outputs applies to these texts."
)
_LIMITS = (
    "- All texts are a model's. They may be wrong, biased or unsafe, and state as facts what the model made "
    "up; nobody has read them all.\n"
    "- Instructions follow what the model saw in training: topics and languages are spread as that was, "
    "unless system prompts steer them.\n"
    f"- Exact duplicates are counted in the report (`{REPORT_KEY}`) and not removed."
)
_LIMITS_OF_SCORES = (
    "- Scores are a model's opinion: another model, or another wording of a question, gives others. Read "
    "some rows before you rely on a threshold.\n"
    "- A value is null where the row lacks the text, or is too long for the model."
)


def write_card(storage: Storage, *, records: Sequence[PartitionRecord] | None = None) -> str:
    """Write the card of the build at this output and return its location. The user's additions stay.

    records: the committed partitions; None reads them. Raises PreflightError when there is no build,
    ReportError when the present card can't be parsed, StorageError.
    """
    record = build_record.require_build(storage)
    if records is None:
        records = manifest.read_committed(storage, record)
    storage.replace(CARD_KEY, card_text(storage, record, records).encode())
    return storage.display(CARD_KEY)


def card_text(
    storage: Storage,
    record: BuildRecord,
    records: Sequence[PartitionRecord],
    *,
    data_files: str = DATA_FILES,
) -> str:
    """The build's card as of now, with the user's additions to the present card.

    data_files: the pattern by which readers find the data beside the card.

    Raises ReportError when the present card can't be parsed; StorageError.
    """
    try:
        present = storage.read(CARD_KEY).decode()
    except ObjectNotFoundError:
        present = ""
    except UnicodeDecodeError as exc:
        raise ReportError(
            f"{storage.display(CARD_KEY)} is not UTF-8 text: repair it or move it away"
        ) from exc
    wanted = run_records.rows_wanted(run_records.read_runs(storage), records)
    try:
        return render_card(
            record,
            records,
            num_rows=wanted,
            present=present,
            data_files=data_files,
            taken=read_selection(storage),
        )
    except ReportError as exc:
        raise ReportError(f"{storage.display(CARD_KEY)}: {exc}") from exc


def render_card(
    record: BuildRecord,
    records: Sequence[PartitionRecord],
    *,
    num_rows: int,
    present: str = "",
    data_files: str = DATA_FILES,
    taken: SelectionRecord | None = None,
) -> str:
    """The text of the card, with the user's additions to the `present` one. taken: of a selection.

    Raises ReportError when the front matter of the present card is not a YAML mapping.
    """
    from huggingface_hub import CardData, RepoCard  # slow to import

    # RepoCard logs a warning about a card without front matter.
    if not present.lstrip().startswith("---"):
        present = f"---\n\n---\n{present}"
    try:
        card = RepoCard(present)
    except (yaml.YAMLError, ValueError, TypeError) as exc:
        raise ReportError(
            f"the front matter, between the first two lines ---, is not a YAML mapping ({exc}): repair it"
        ) from exc
    tally = Tally.sum(records)
    front = {
        **_defaults(record),
        **card.data.to_dict(),  # type: ignore[no-untyped-call]
        **_facts(record, tally.rows, data_files),
    }
    body = "\n\n".join(_body(record, tally, num_rows=num_rows, licence=front["license"], taken=taken))
    if _BEGIN in card.text and _END in card.text:
        before, _, rest = card.text.partition(_BEGIN)
        after = rest.partition(_END)[2]
    else:
        before, after = "\n", f"\n\n{card.text.strip()}".rstrip() + "\n"
    card.data = CardData(**front)
    card.text = f"{before}{_BEGIN}\n\n{body}\n\n{_END}{after}"
    return str(card)


def _defaults(record: BuildRecord) -> dict[str, object]:
    """Front matter that the user may overrule."""
    return {
        "license": _UNKNOWN_LICENCE,
        "pretty_name": _title(record),
        "task_categories": ["text-generation"],
        "tags": ["magpie", "magpie-ray", "synthetic"],
        **({"language": languages} if (languages := _languages(record)) else {}),
    }


def _facts(record: BuildRecord, rows: int, data_files: str) -> dict[str, object]:
    """Front matter that follows from the build."""
    facts: dict[str, object] = {
        "size_categories": [card_front.size_category(rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": data_files}]}],
    }
    if features := card_front.features(record.schema):
        facts["dataset_info"] = {"features": features}
    return facts


def _languages(record: BuildRecord) -> list[str]:
    """The languages that the `language` rule requires of messages; none where the rule is off."""
    config: Any = record.config
    rules = (config.get("acceptance") or {}).get("rules") or {}
    rule = rules.get("language") or {}
    required = [rule.get("is") or [], *(rule.get("by_prompt") or {}).values()]
    return sorted({code for codes in required for code in ([codes] if isinstance(codes, str) else codes)})


def _model(record: BuildRecord) -> str:
    return str(record.identity.get("model.name", "a chat model"))


def _body(
    record: BuildRecord, tally: Tally, *, num_rows: int, licence: object, taken: SelectionRecord | None
) -> list[str]:
    rows = f"{tally.rows:,} rows"
    if tally.rows < num_rows:
        rows += f" of {num_rows:,}: the build is not complete yet"
    kind = _curation(record)
    model = "the models that wrote them" if kind else _model(record)
    return [
        f"# {_title(record)}",
        *([_ASK_FOR_LICENCE.format(model=model)] if licence == _UNKNOWN_LICENCE else []),
        f"{rows}, {_origin(record)}{'' if kind else _counts(tally)}",
        "```python\nfrom datasets import load_dataset\n\n"
        'rows = load_dataset("path/or/hub/id", split="train")\n```',
        "## Columns",
        "\n".join(["| column | type | meaning |", "|---|---|---|", *_columns(record)]),
        "## How it was made",
        *(selection_body(record, taken) if kind == "select" else _config(record)),
        "## Limits",
        _LIMITS_OF_SCORES if record.job == "score" else _LIMITS,
    ]


def _curation(record: BuildRecord) -> str:
    """The command that made the data set of others, such as select; "" for rows that a model wrote."""
    return str(record.identity.get("kind", ""))


def _title(record: BuildRecord) -> str:
    if kind := _curation(record):
        return curated_title(kind)
    what = {"answer": "Answers", "score": "Scores"}.get(record.job, "Magpie rows")
    return f"{what} by {_model(record)}"


def _origin(record: BuildRecord) -> str:
    """Who wrote the rows, as the end of a sentence about them."""
    if kind := _curation(record):
        return f"made of other data sets by `magpie-ray {kind}`."
    commit = record.identity.get("model.commit")
    model = f"`{_model(record)}`" + (f" at commit `{commit}`" if commit else "")
    source: Any = record.config.get("source")
    if record.job == "score":
        return (
            f"with scores by {model} for the rows of `{source['path']}` that have the same `row_id`, whose "
            "own card says who wrote them."
        )
    if record.answers:
        each = "one answer" if record.answers == 1 else f"{record.answers} answers"
        return (
            f"with {each} by {model} to the last message of the user in each row of `{source['path']}`, "
            "whose own card says who wrote the instructions."
        )
    return (
        f"written by {model} from nothing but its chat template, as Magpie "
        "([arXiv 2406.08464](https://arxiv.org/abs/2406.08464)) does it: given what stands before a user's "
        "message, an aligned chat model writes the message itself; sent back, it answers."
    )


def _counts(tally: Tally) -> str:
    """What it took to make the rows, as a sentence."""
    rejected = sum(tally.rejected.values())
    reasons = ", ".join(f"{times:,} {reason}" for reason, times in sorted(tally.rejected.items()))
    return (
        f" Generated with magpie-ray: {tally.attempts:,} attempts, {rejected:,} rejected"
        + (f" ({reasons})" if reasons else "")
        + f"; {tally.tokens:,} tokens."
    )


def _columns(record: BuildRecord) -> list[str]:
    lines = []
    for column in record.schema:
        kind = str(column.type).replace("<item: ", "<")
        lines.append(f"| `{column.name}` | `{kind}` | {_meaning(record, column.name)} |")
    return lines


def _config(record: BuildRecord) -> list[str]:
    config = yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True)
    return [
        f"Build `{record.fingerprint}`, begun {record.created}. The config in full, secrets left out:",
        fenced(config, "yaml"),
    ]


def _meaning(record: BuildRecord, name: str) -> str:
    columns = answer_columns_by_name(record.answers) if record.answers else COLUMNS
    scored: Any = record.identity.get("columns") if record.job == "score" else None
    if scored and name in (meanings := score_meanings(scored)):
        return meanings[name]
    if name in columns:
        return columns[name].meaning
    if kind := _curation(record):
        return curated_meaning(kind, name)
    return "from the source" if record.job in ("answer", "score") else "from the row's input"
