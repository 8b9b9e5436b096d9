"""The table of chat formats in the documentation is what the derivation gives today."""

from tests.chat_format.family_table import rows
from tests.support.paths import ROOT

TABLE = (ROOT / "docs/chat-templates.md").read_text().splitlines()


def test_every_family_is_told_as_it_derives() -> None:
    missing = [row for row in rows() if row not in TABLE]
    assert missing == []
