"""Output URLs: which ones are valid, and what each refers to; and which keys below them are."""

import importlib.util
import os

from fsspec.registry import known_implementations, registry

from magpie_ray.errors import PreflightError

# Our extra that brings the client of a scheme.
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}


def parse_url(url: str) -> tuple[str, str]:
    """Protocol and URL as shown to the user; a path without a scheme becomes absolute.

    Raises PreflightError for a URL that can't work or holds a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if url.partition(":")[0] in known_implementations:
            raise PreflightError(f"The output URL {url!r} lacks '//' after its scheme.")
        scheme, rest = "file", url
    if not rest.strip("/") and (scheme != "file" or not rest):
        raise PreflightError(f"The output URL {url!r} names no place: give a path, or a bucket after '://'.")
    if scheme in ("file", "local"):
        return "file", os.path.abspath(os.path.expanduser(rest))
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise PreflightError(
            f"The output URL ({scheme}://...) holds a password. Credentials belong in the environment, in an "
            "instance role or in output.storage_options."
        )
    if "?" in rest or "::" in url:
        raise PreflightError(
            f"The output URL ({scheme}://...) must be plain: it can't have a query or chain file systems."
        )
    if scheme not in known_implementations and scheme not in registry:
        raise PreflightError(
            f"The output URL has an unknown scheme {scheme!r}. Use a local path, s3://, gs://, abfs://, or "
            "another scheme of fsspec."
        )
    known = known_implementations.get(scheme)
    if known and importlib.util.find_spec(str(known["class"]).partition(".")[0]) is None:
        extra = _EXTRAS.get(scheme)
        remedy = f'`pip install "magpie-ray[{extra}]"`' if extra else str(known.get("err", ""))
        raise PreflightError(f"Nothing is installed that opens {scheme}://. {remedy}".strip())
    return scheme, url.rstrip("/")


def check_key(key: str) -> None:
    """ValueError for what is no key of an object."""
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"a key is a relative path without dots, such as data/x.parquet; not {key!r}")
