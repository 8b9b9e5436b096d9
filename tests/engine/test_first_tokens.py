"""First tokens: whatever is written past the table begins with no banned text, and little else is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.sampling import FirstTokens
from magpie_ray.engine.first_tokens import START, FirstTokenTable
from magpie_ray.engine.token_bytes import TokenBytes
from magpie_ray.errors import ConfigError

# Few characters, so that texts meet: a two-byte one, and white space of one and of three bytes.
ALPHABET = "ab#é \n\u3000"
END, SPECIAL = 0, 1
# Every byte is a token, as in real vocabularies, so that any text can be written in many ways.
BYTES = [bytes([byte]) for byte in sorted(set(ALPHABET.encode()))]

texts = st.text(ALPHABET, min_size=1, max_size=4)
beginnings = texts.filter(lambda text: not text[0].isspace())
vocabularies = st.lists(texts.map(str.encode), max_size=12).map(
    lambda more: TokenBytes(pieces=[b"#", None, *BYTES, *more], is_exact=True)
)


def table_of(vocabulary: TokenBytes, *ban: str, **penalties: float) -> FirstTokenTable:
    rules = FirstTokens(ban=list(ban), penalties=penalties)
    return FirstTokenTable(rules, vocabulary, ends=[END])


def written(vocabulary: TokenBytes, ids: list[int]) -> str:
    """The message, with the white space behind it that more text would keep."""
    return b"".join(vocabulary.pieces[i] or b"" for i in ids).decode(errors="replace").lstrip()


@given(vocabularies, st.lists(beginnings, max_size=3), st.data())
def test_a_message_written_past_the_table_begins_with_no_banned_text(
    vocabulary: TokenBytes, bans: list[str], data: st.DataObject
) -> None:
    try:
        table = table_of(vocabulary, *bans)
    except ConfigError:
        return
    ids, beginning = list[int](), START
    choices = [i for i, piece in enumerate(vocabulary.pieces) if piece and i != END]
    for _ in range(8):
        banned = set(table[beginning].banned) if beginning is not None else set()
        allowed = [token_id for token_id in choices if token_id not in banned]
        if not allowed:
            break
        # What is banned is banned for a reason.
        for token_id in banned:
            assert written(vocabulary, [*ids, token_id]).startswith(tuple(bans))
        ids.append(data.draw(st.sampled_from(allowed)))
        if beginning is not None:
            beginning = table.after(beginning, ids[-1])
    assert not written(vocabulary, ids).startswith(tuple(bans))


WORDS = [b"", b"", b"S", b"ure", b"Sure", b" Sure", b",", b" Surely", b"\n", b"What", b"#", b"##", b" is"]
SURE = TokenBytes(pieces=[None, None, *WORDS[2:]], is_exact=True)


def ids_of(*words: bytes) -> set[int]:
    return {WORDS.index(word) for word in words}


def test_a_text_of_several_tokens_is_stopped_where_it_would_be_complete() -> None:
    table = table_of(SURE, "Sure,")
    assert table[START].banned == ()
    for way in ([b"Sure"], [b" Sure"], [b"\n", b"S", b"ure"]):
        beginning: bytes | None = START
        for word in way:
            assert beginning is not None
            beginning = table.after(beginning, WORDS.index(word))
        assert beginning == b"Sure"
        assert set(table[beginning].banned) == ids_of(b",")
    assert table.after(START, WORDS.index(b" Surely")) is None


def test_white_space_in_front_keeps_the_ban_and_other_text_ends_it() -> None:
    table = table_of(SURE, "#")
    assert set(table[START].banned) == ids_of(b"#", b"##")
    assert table.after(START, WORDS.index(b"\n")) == START
    assert table.after(START, WORDS.index(b"What")) is None


def test_penalties_hold_for_the_token_that_begins_the_text_and_add_up() -> None:
    table = table_of(SURE, Sure=2.0, Surely=1.0)
    expected = {b"S": 3.0, b"Sure": 3.0, b" Sure": 3.0, b" Surely": 3.0}
    assert table[START].penalties == {WORDS.index(word): penalty for word, penalty in expected.items()}
    assert table.after(START, WORDS.index(b"\n")) == START
    assert table.after(START, WORDS.index(b"S")) is None


def test_tokens_that_end_a_message_are_never_banned() -> None:
    vocabulary = TokenBytes(pieces=[b"<end>", None, b"<", b"<b>", b"What"], is_exact=True)
    assert table_of(vocabulary, "<")[START].banned == (2, 3)


def test_bans_that_leave_nothing_to_begin_with_are_refused() -> None:
    vocabulary = TokenBytes(pieces=[b"<end>", None, b"a", b" b", b"\n"], is_exact=True)
    with pytest.raises(ConfigError, match=r"^first_tokens\.ban: 'a', 'b' leave no token .* ban fewer texts"):
        table_of(vocabulary, "a", "b")


def test_texts_whose_bytes_the_tokenizer_hides_are_refused() -> None:
    hidden = TokenBytes(pieces=SURE.pieces, is_exact=False)
    assert table_of(hidden, "#")[START].banned
    with pytest.raises(ConfigError, match=r"must be ASCII, got 'é'"):
        table_of(hidden, "#", "é")


def test_rules_travel_as_text() -> None:
    rules = FirstTokens(ban=["#", "é"], penalties={"Sure": 2.0}, temperature=1.2, count=2)
    assert FirstTokens.model_validate_json(rules.model_dump_json()) == rules
