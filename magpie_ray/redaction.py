"""What may be a secret in a config: which values no message, log or record may show.

Owns: the names that give a secret away, and the redacted copy of a mapping. `output.storage_options` is taken
to be secret throughout, since every file system calls its credentials something else.
"""

import re
from collections.abc import Mapping

REDACTED = "(left out)"

_SECRET_NAME = re.compile(
    r"(?:^|_)token$|secret|passw|passphrase|credential|api_?key|access_?key|private_?key|auth|cookie|header",
    re.IGNORECASE,
)
# Values that give themselves away: well-known token prefixes, and URLs with a password in them.
_SECRET_VALUE = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|AKIA|ASIA)[A-Za-z0-9_-]{8}|://[^/\s:@]*:[^/\s@]+@")


def hides_value(path: tuple[object, ...]) -> bool:
    """Whether a message may not show the value at this path of the config."""
    if path[:2] == ("engine", "extra"):
        return any(is_secret_name(str(part)) for part in path[2:])
    return path[:2] == ("output", "storage_options")


def is_secret_name(name: str) -> bool:
    """Whether a key of this name usually holds a secret, such as `hf_token` or `api-key`."""
    return _SECRET_NAME.search(name.replace("-", "_")) is not None


def redact_secrets(value: object, name: str = "") -> object:
    """A copy of a JSON-like value in which whatever looks like a secret is `REDACTED`; keys are kept."""
    if is_secret_name(name):
        return redact_all(value)
    if isinstance(value, Mapping):
        return {key: redact_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_secrets(item) for item in value]
    return REDACTED if isinstance(value, str) and _SECRET_VALUE.search(value) else value


def redact_all(value: object) -> object:
    """A copy of a JSON-like value that keeps its keys, its booleans and its nulls, and nothing else."""
    if isinstance(value, Mapping):
        return {key: redact_all(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool) else REDACTED
