"""The help: groups, examples that the command line takes, exit codes."""

import shlex

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from magpie_ray.cli.help import EXAMPLES, GroupedCommands, closing
from magpie_ray.cli.program import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHOWN = [(name, example) for name, examples in EXAMPLES.items() for example in examples]


def help_of(*command: str) -> str:
    return CliRunner().invoke(app, [*command, "--help"], terminal_width=80).output


def test_commands_stand_in_groups_with_their_whole_first_sentence() -> None:
    grouped = typer.Typer(cls=GroupedCommands, rich_markup_mode=None)

    @grouped.command(rich_help_panel="First steps")
    def begin() -> None:
        """Begin with a sentence that is longer than a line of a terminal, so that it goes on below. More."""

    @grouped.command(rich_help_panel="Last steps")
    def end() -> None:
        """End."""

    text = CliRunner().invoke(grouped, ["--help"], terminal_width=80).output
    first, last = text.split("First steps:\n")[1].split("Last steps:\n")
    assert " ".join(first.split()).endswith("so that it goes on below.")
    assert last.split() == ["end", "End."]


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == {name for name, command in COMMANDS.items() if not command.hidden}
    assert "\n  job " not in help_of()


@pytest.mark.parametrize(("name", "example"), SHOWN)
def test_an_example_is_taken_and_shown_as_it_is(name: str, example: str) -> None:
    first, *given = shlex.split(example.replace("\\\n", " "))
    assert first == name
    COMMANDS[name].make_context(name, given)
    text = help_of(name)
    for line in f"magpie-ray {example}".splitlines():
        assert f"  {line}\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_exit_codes_stand_in_the_first_help_and_where_scripts_need_them() -> None:
    assert "3  interrupted" in help_of()
    assert "3  interrupted" in closing("answer")
    assert "Exit codes" not in closing("show")
