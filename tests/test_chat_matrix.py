"""The README's table of chat formats is what the derivation gives today."""

from pathlib import Path

from tests.chat_matrix import rows

README = (Path(__file__).resolve().parents[1] / "README.md").read_text().splitlines()


def test_the_readme_has_every_family_as_it_derives() -> None:
    missing = [row for row in rows() if row not in README]
    assert missing == []
