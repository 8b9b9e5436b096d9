"""The result of `magpie-ray plan` as text for people."""

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from magpie_ray.utils.text import (
    bytes_text,
    counted,
    percent,
    short_number,
    shortened,
    span_text,
    three_digits,
    visible,
)

# The answer fits a terminal of 24 lines and 80 columns.
_PROMPT_CHARACTERS, _SHOWN_WARNINGS = 130, 3


def plan_text(fields: dict[str, Any], *, full: bool = False) -> str:
    """`magpie-ray plan` as text. full: with all prompts and ids, the assumptions and the whole config."""
    prompt, warnings = visible(fields["first_prompt"]), fields["warnings"]
    if not full:
        prompt = shortened(prompt, _PROMPT_CHARACTERS)
    lines = [
        f"output        {fields['output']} ({'resumes' if fields['exists'] else 'new build'})",
        f"model         {fields['model']['name']} at {fields['model']['commit']}",
        *_row_lines(fields),
    ]
    if fields["inputs"]:
        lines.append(_inputs_line(fields["inputs"]))
    if fields["source"]:
        lines.append(_source_line(fields["source"]))
    if fields["engine"]:
        lines += _engine_lines(fields["engine"], fields["model_size"], full=full)
    if fields["sample"]:
        lines += _sample_lines(fields["sample"])
    if fields["estimate"]:
        reads = fields["job"] == "score" and not fields["sample"]
        lines += _estimate_lines(fields["estimate"], verb="read" if reads else "write")
    then = " and then the messages of the row" if fields["job"] == "answer" else ""
    lines.append(f"first prompt  {prompt}{then}")
    if full:
        lines += _full_lines(fields)
    else:
        for name in ("system_prompts", "samplings"):
            if (number := len(fields[name])) > 1:
                lines.append(f"{name.replace('_', ' '):13} {number}, drawn by weight")
        if len(warnings) > _SHOWN_WARNINGS:
            warnings = [*warnings[:_SHOWN_WARNINGS], f"{len(warnings) - _SHOWN_WARNINGS} more: see --full"]
    lines += [f"warning       {text}" for text in warnings]
    if full:
        config = yaml.safe_dump(fields["config"], sort_keys=False, allow_unicode=True, width=100)
        lines += ["config", *(f"  {line}" for line in config.splitlines())]
    else:
        lines.append(f"--full shows {counted(len(fields['assumptions']), 'assumption')}, ids and the config")
    return "\n".join(lines)


def _row_lines(fields: Mapping[str, Any]) -> list[str]:
    sizes = sorted({shard["rows"] for shard in fields["shards"]})
    spread = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    done = f", {fields['rows_committed']:,} of them committed" if fields["rows_committed"] else ""
    each = f" of {counted(fields['messages_per_row'], 'message')} each" if fields["messages_per_row"] else ""
    return [
        f"rows          {fields['num_rows']:,}{each}{done}",
        f"files         {fields['partitions_pending']:,} of up to {fields['rows_per_partition']:,} rows, by "
        f"{counted(fields['num_actors'], 'actor')} on {fields['device']}, {spread} rows each",
    ]


def _inputs_line(inputs: Mapping[str, Any]) -> str:
    number, prompts = inputs["number"], inputs["with_system_prompt"]
    files = counted(inputs["files"], f"{inputs['format']} file")
    pick = ", drawn at random" if inputs["pick"] == "at_random" else ""
    without = f", {number - prompts:,} without a system prompt" if prompts < number else ""
    return f"inputs        {number:,} in {files} at {inputs['path']}{without}{pick}"


def _source_line(source: Mapping[str, Any]) -> str:
    each = f", {source['answers']} answers to each" if source["answers"] > 1 else ""
    files = counted(source["files"], "file")
    return f"source        {counted(source['rows'], 'row')} in {files} at {source['path']}{each}"


def _full_lines(fields: Mapping[str, Any]) -> list[str]:
    """What the first prompt, the build and its estimates rest on."""
    lines = [f"  as ids      {fields['first_prompt_ids']}"]
    user, assistant = fields["user_stop_token_ids"], fields["assistant_stop_token_ids"]
    if fields["messages_per_row"]:
        lines.append(f"stop ids      user {user}, assistant {assistant}")
    if fields["stop_strings"]:
        lines.append(f"stop strings  {', '.join(visible(s) for s in fields['stop_strings'])}")
    if len(fields["system_prompts"]) > 1:
        lines.append("system prompts")
        lines += [
            f"  {prompt['weight']:7.2%}  {prompt['key'] or ''}  {visible(prompt['text'])}"
            for prompt in fields["system_prompts"]
        ]
    if fields["samplings"]:
        lines.append("sampling_key")
        lines += [
            f"  {choice['weight']:7.2%}  {key}  {choice['settings']}"
            for key, choice in enumerate(fields["samplings"])
        ]
    if fields["messages_per_row"]:
        lines.append(f"longest row   {fields['max_tokens_per_row']:,} tokens")
    lines += [
        f"columns       {', '.join(fields['columns'])}",
        f"fingerprint   {fields['fingerprint'] or 'not known before the seed is drawn'}",
        *(f"assumed       {text}" for text in fields["assumptions"]),
    ]
    return lines


def _engine_lines(engine: Mapping[str, Any], size: Mapping[str, Any], *, full: bool) -> list[str]:
    each = engine["cache_bytes_per_token"] / 1024
    usable, weights, cache = (bytes_text(engine[f"{name}_bytes"]) for name in ("usable", "weight", "cache"))
    lines = [f"parameters    {short_number(size['parameters'])}"] if full else []
    lines += [
        f"engine        {engine['gpus']} x {engine['gpu']}, of each {usable} used: {weights} of weights, "
        f"{cache} of cache",
    ]
    if full:
        lines.append(f"cache         {engine['cache_tokens']:,} tokens of {each:,.4g} KiB on each GPU")
    if engine["tokens_per_second"]:
        lines.append(
            f"batch         about {engine['sequences']:,} sequences at once (max_num_seqs "
            f"{engine['max_num_seqs']:,}), {_range(engine['tokens_per_second'], short_number)} tokens/s"
        )
    return lines


def _sample_lines(sample: Mapping[str, Any]) -> list[str]:
    seconds, start = span_text(sample["seconds"]), span_text(sample["start_seconds"])
    return [
        f"sample        {sample['rows']:,} rows by {sample['engines']} engines in {seconds}, up after "
        f"{start}: {sample['tokens_per_second']:,.0f} tokens/s each, "
        f"{sample['tokens'] / sample['rows']:,.0f} tokens a row, "
        f"{percent(sample['rows'] / sample['attempts'])} of attempts accepted",
    ]


def _estimate_lines(estimate: Mapping[str, Any], *, verb: str) -> list[str]:
    lines = [
        f"tokens        {_range(estimate['tokens'], short_number)} to {verb}, by {estimate['basis']}",
        f"time          {_range(estimate['wall_seconds'], span_text)}",
        f"size          {_range(estimate['size_bytes'], bytes_text)}",
    ]
    if estimate["gpu_hours"]:
        lines.append(f"GPU-hours     {_range(estimate['gpu_hours'], three_digits)}")
    if estimate["cost"]:
        lines.append(f"cost          {_range(estimate['cost'], three_digits)}")
    return lines


def _range(values: Mapping[str, float], show: Callable[[float], str]) -> str:
    low, high = show(values["low"]), show(values["high"])
    return low if low == high else f"{low} to {high}"
