"""Keys that a build's identity has got since version 0.1.0, and the value of each that changes no row.

The fingerprint of a build is a hash of its identity. A key of a later version would change the fingerprint of
every build that an earlier version began, so the identity leaves the key out while it has its neutral value.
Invariant: the keys of version 0.1.0 are in every identity, whatever their values.
"""

import json
from collections.abc import Mapping
from typing import Any

# By dotted key, without the indices of lists: "sampling.user.KEY" stands for the user's one setting and for
# each of several. "chat_format.FIELD" is a field of ChatFormat. An entry is never changed or removed.
NEUTRAL: Mapping[str, object] = {
    "acceptance.rules.repetition.max_said_before": 0.2,
    # `content` stands for the bytes that path, system_prompt and weight name (preflight.build_spec).
    "inputs.content": None,
    "inputs.keep": [],
    "inputs.pick": "in_order",
}


def without_neutral(identity: Mapping[str, Any], neutral: Mapping[str, object] = NEUTRAL) -> dict[str, Any]:
    """The identity without the keys that have their neutral value, nor mappings of nothing else."""
    stripped: dict[str, Any] = _stripped(identity, "", neutral)
    return stripped


def _stripped(value: Any, path: str, neutral: Mapping[str, object]) -> Any:
    """The value, which lies at the dotted path, without what is neutral in it."""
    if isinstance(value, list | tuple):
        return [_stripped(item, path, neutral) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for name, item in value.items():
        at = f"{path}.{name}" if path else str(name)
        if at in neutral and _same(item, neutral[at]):
            continue
        kept[name] = _stripped(item, at, neutral)
        if item and kept[name] == {}:
            del kept[name]
    return kept


def _same(value: object, other: object) -> bool:
    """Whether the two are the same JSON, in which 1, 1.0 and true are three values."""
    return json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
