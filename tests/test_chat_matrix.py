"""The table of chat formats in the documentation is what the derivation gives today."""

from pathlib import Path

from tests.chat_matrix import rows

TABLE = (Path(__file__).resolve().parents[1] / "docs/any-model.md").read_text().splitlines()


def test_every_family_is_told_as_it_derives() -> None:
    missing = [row for row in rows() if row not in TABLE]
    assert missing == []
