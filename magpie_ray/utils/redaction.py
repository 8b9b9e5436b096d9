"""Secrets: the values of a config or of the environment that no message, log or record may show.

Owns: the names that give a secret away, redacted copies of mappings, and the scrubbing of texts from
libraries, which may quote anything. All of `storage_options` counts as secret, because every file
system has its own names for credentials.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

REDACTED = "(left out)"
# In texts of libraries. Shorter values are no secrets, and would be found in the middle of words.
_SCRUBBED = "***"
_SHORTEST_SECRET = 5

_SECRET_NAME = re.compile(
    r"(?:^|_)token$|secret|passw|passphrase|credential|connection_?string|"
    r"(?:account|api|access|private)_?key|auth|cookie|header",
    re.IGNORECASE,
)
# Values that are secrets under any name: well-known token prefixes, and URLs with a password in them.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|AKIA|ASIA)[A-Za-z0-9_-]{8,}|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)|"
    # In connection strings and signed URLs.
    r"(?<=AccountKey=)[^;\s]+|(?<=SharedAccessSignature=)[^;\s]+|(?<=[?&]sig=)[^&\s]+|(?<=Signature=)[^;&\s]+"
)
# Stricter than _SECRET_NAME: RAY_AUTH_MODE=disabled is no secret.
_SECRET_VARIABLE = re.compile(r"(?:token|secret|passw(?:or)?d|key|connection_string)$", re.IGNORECASE)
_PUBLIC_OPTIONS = frozenset(
    {
        "account_name",
        "addressing_style",
        "default_cache_type",
        "endpoint_url",
        "profile",
        "project",
        "region_name",
        "signature_version",
    }
)


def hides_value(path: tuple[object, ...]) -> bool:
    """Whether messages must hide the value at this path of the config."""
    if path[:2] == ("engine", "extra"):
        return any(is_secret_name(str(part)) for part in path[2:])
    return path[:2] in (("output", "storage_options"), ("inputs", "storage_options"))


def is_secret_name(name: str) -> bool:
    """Whether a key of this name usually holds a secret, such as `hf_token` or `api-key`."""
    return _SECRET_NAME.search(name.replace("-", "_")) is not None


def redact_secrets(value: object, name: str = "") -> object:
    """A copy of a JSON-like value with `REDACTED` in place of everything that looks like a secret."""
    if is_secret_name(name):
        return redact_all(value)
    if isinstance(value, Mapping):
        return {key: redact_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_secrets(item) for item in value]
    return REDACTED if isinstance(value, str) and _SECRET_VALUE.search(value) else value


def redact_all(value: object) -> object:
    """A copy of a JSON-like value that keeps only its keys, booleans and nulls."""
    if isinstance(value, Mapping):
        return {key: redact_all(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool) else REDACTED


def secret_leaves(
    data: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path and text of every value in the user's config, or in a part of it, that may be a secret."""
    for name, value in data.items():
        at = (*path, str(name))
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            yield from secret_leaves(value, at)
        elif isinstance(value, str):
            is_hidden = hides_value(at) and at[-1] not in _PUBLIC_OPTIONS
            if is_hidden or _SECRET_VALUE.search(value):
                yield at, value


def secrets_of(extra: Mapping[str, object], *storage_options: Mapping[str, object]) -> frozenset[str]:
    """The secrets of a config and of this process's environment."""
    configs: list[Mapping[str, object]] = [{"engine": {"extra": extra}}]
    configs += [{"output": {"storage_options": options}} for options in storage_options]
    variables = {text for name, text in os.environ.items() if _SECRET_VARIABLE.search(name)}
    secrets = {text for config in configs for _, text in secret_leaves(config)}
    secrets |= {t for t in variables if not t.startswith("/")}
    return frozenset(text for text in secrets if len(text) >= _SHORTEST_SECRET)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """A library's text without the secrets, also where they are quoted or part of a URL."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, repr(secret)[1:-1], quote(secret), quote(secret, safe="")):
            text = text.replace(form, _SCRUBBED)
    return _SECRET_VALUE.sub(_SCRUBBED, text)
