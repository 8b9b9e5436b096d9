"""What may be a secret is found where it is named, and struck out of texts that others wrote."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.utils.redaction import is_secret_name, scrub, secret_leaves, secrets_of
from tests.support.builds import config_of


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables = dict[str, str]()
    monkeypatch.setattr(os, "environ", variables)
    return variables


def test_secrets_are_what_options_hold_and_what_stands_under_secret_names(
    environment: dict[str, str],
) -> None:
    config = config_of(
        engine={
            "extra": {"hf_token": "token-1", "hf_overrides": {"api-key": ["token-2"]}, "load_format": "dummy"}
        },
        output={
            "storage_options": {
                "secret": "secret-1",
                "endpoint_url": "http://minio:9000",
                "client_kwargs": {"region_name": "eu-west-1", "proxies": ["secret-2"]},
                "anon": False,
                "pin": "1234",
            }
        },
    )
    assert config.secrets() == {"token-1", "token-2", "secret-1", "secret-2"}


def test_secrets_are_also_what_the_environment_has_under_secret_names(environment: dict[str, str]) -> None:
    environment |= {
        "HF_TOKEN": "token-1",
        "AWS_SECRET_ACCESS_KEY": "secret-1",
        "AWS_SESSION_TOKEN": "",
        "RAY_AUTH_MODE": "disabled",
        "GOOGLE_APPLICATION_KEY": "/home/me/key.json",
        "HOME": "/home/me",
    }
    assert secrets_of({}, {}) == {"token-1", "secret-1"}


def test_the_path_of_each_secret_in_what_the_user_wrote_is_known() -> None:
    written = {
        "model": {"name": "org/chat", "revision": "hf_abcdefghijkl"},
        "engine": {"extra": {"hf_token": "x1"}, "dtype": "auto"},
        "output": {"path": "s3://b/c", "storage_options": {"key": "x2", "endpoint_url": "http://minio:9000"}},
        "seed": 3,
    }
    assert [".".join(path) for path, _ in secret_leaves(written)] == [
        "model.revision",
        "engine.extra.hf_token",
        "output.storage_options.key",
    ]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key=aB/+\\x'y refused", "key=*** refused"),
        (repr({"secret": "aB/+\\x'y"}), "{'secret': \"***\"}"),
        ("GET /?sig=aB%2F%2B%5Cx%27y HTTP", "GET /?sig=*** HTTP"),
        ("login hf_abcdefghijklmnop failed", "login *** failed"),
        ("proxy http://me:pass@host:80/x", "proxy http://***@host:80/x"),
        ("nothing to hide at s3://bucket/path", "nothing to hide at s3://bucket/path"),
    ],
)
def test_a_secret_is_struck_out_however_it_is_quoted(text: str, left: str) -> None:
    assert scrub(text, {"aB/+\\x'y"}) == left


def test_a_secret_that_holds_another_one_goes_as_a_whole() -> None:
    assert scrub("got secret-and-more", {"secret", "secret-and-more"}) == "got ***"


@given(st.text(), st.sets(st.text("abc/+%'\\", min_size=5), max_size=3))
def test_no_text_keeps_a_secret(text: str, secrets: set[str]) -> None:
    for secret in secrets:
        assert secret not in scrub(f"{text} {secret} {secret!r} {text}", secrets)


@pytest.mark.parametrize("name", ["account_key", "connection_string", "sas_token", "token", "accountKey"])
def test_names_of_credentials_of_cloud_stores_give_them_away(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AccountName=a;AccountKey=c2VjcmV0LTE=;X=x", "AccountName=a;AccountKey=***;X=x"),
        ("https://a/c?sv=1&sig=secret%2F1&se=2", "https://a/c?sv=1&sig=***&se=2"),
        ("https://b/k?X-Amz-Signature=secret1&x=2", "https://b/k?X-Amz-Signature=***&x=2"),
    ],
)
def test_keys_in_connection_strings_and_signed_urls_are_struck_out(text: str, shown: str) -> None:
    assert scrub(text, []) == shown
