"""What `--help` says beside the options: commands in groups, examples, exit codes.

Invariants: a line has 80 columns at most; each example is a command that the command line takes.
"""

from typing import Any

import typer.core

EXIT_CODES = """\
Exit codes:
  0  done
  1  the work failed, or verify found a problem
  2  nothing was started: wrong usage or config, an unusable output or model
  3  interrupted: the same command resumes"""

EXAMPLES = {
    "init": ("init", "init qwen2.5-7b", "init demo mine.yaml"),
    "generate": (
        "generate demo num_rows=100",
        "generate mine.yaml output.path=s3://BUCKET/mine",
        "generate mine.yaml --if-exists skip 'output.path=/data/{date}'",
    ),
    "answer": (
        "answer answers.yaml",
        "answer answers.yaml n=4 output.path=out/four-answers",
    ),
    "score": (
        "score score-quality source.path=out/demo output.path=out/quality",
        "score scores.yaml",
    ),
    "plan": (
        "plan demo",
        "plan qwen2.5-7b num_rows=1000000 --gpu H100-80GB",
        "plan demo --sample 60s",
    ),
    "preview": ("preview demo -n 5",),
    "template": ("template builtin:tiny-chat", "template Qwen/Qwen2.5-7B-Instruct --system 'Be brief.'"),
    "status": ("status out/demo --watch",),
    "verify": ("verify out/demo",),
    "show": (
        "show out/demo -n 10",
        "show out/demo --where \"'length' = ANY(finish_reasons)\"",
        "show out/demo --rejects",
    ),
    "report": ("report out/demo --to report.html --open",),
    "export": (
        "export out/demo rows.parquet --to messages",
        "export out/answers p.parquet --to preference --scores out/rewards",
    ),
    "push": ("push out/demo my-name/magpie-demo --dry-run",),
    "dedupe": (
        "dedupe out/demo out/marked",
        "dedupe out/demo out/marked --against benchmark.jsonl",
    ),
    "select": (
        "select out/kept --from rows=out/demo --from marks=out/marked \\\n"
        '    --sql "SELECT rows.* FROM rows JOIN marks USING (row_id)\n'
        '           WHERE repeat_count = 0"',
        "select out/mine --from rows=out/demo --sql query.sql --dry-run",
    ),
}
_WITH_EXIT_CODES = {"generate", "answer", "score", "verify"}


class GroupedCommands(typer.core.TyperGroup):
    """Commands under the names of their groups, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes a section for each group, in the order in which the commands were given."""
        groups = dict[str, list[tuple[str, str]]]()
        for name, command in self.commands.items():
            if command.hidden:
                continue
            group = str(getattr(command, "rich_help_panel", None) or "Commands")
            groups.setdefault(group, []).append((name, command.get_short_help_str(limit=1000)))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


def closing(command: str) -> str:
    """What stands at the end of a command's help. A paragraph of \\b keeps its lines as they are."""
    shown = "\n".join(f"  magpie-ray {example}" for example in EXAMPLES[command])
    codes = f"\n\n\b\n{EXIT_CODES}" if command in _WITH_EXIT_CODES else ""
    return f"\b\nExamples:\n{shown}{codes}"
