"""Makes the parts of a worker from its spec: the recipe of rows, the vLLM engine, the admission window."""

from typing import Any

from magpie_ray.acceptance import RuleContext, build_rules
from magpie_ray.chat_format import ChatFormat, message_ids
from magpie_ray.config.sampling import EXPECTED_FILL
from magpie_ray.engine.protocol import EngineFigures, Sampling
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.engine import VllmEngine, start_vllm
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.conversation import Recipe, SamplingPair
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.worker.spec import WorkerSpec


def make_recipe(spec: WorkerSpec, tokenizer: Any = None) -> Recipe:
    """The recipe of the build's rows. tokenizer: decodes them; None loads the model's own.

    ModelError when this machine does not have the build's model.
    """
    build_spec = spec.build_spec
    config, form = build_spec.config, build_spec.chat_format
    build_spec.model.check()
    tokenizer = (
        tokenizer
        or load_tokenizer(
            build_spec.model.location,
            revision=build_spec.model.revision,
            trust_remote_code=config.model.trust_remote_code,
        ).tokenizer
    )

    def decode(messages: list[list[int]]) -> list[str]:
        texts: list[str] = tokenizer.batch_decode(
            messages, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        # A format's prefix may leave the white space before a message to the model (see ChatFormat).
        return [text.strip() for text in texts]

    def encode(text: str, index: int, system_prompt: str | None) -> list[int]:
        return message_ids(tokenizer, form, text, index=index, system_prompt=system_prompt)

    rules = build_rules(
        config.acceptance,
        RuleContext(
            markers=form.role_markers,
            special_token_ids=frozenset(form.special_token_ids),
            role_words=_assistant_names(form),
        ),
    )
    return Recipe(
        chat_format=form,
        decode=decode,
        encode=encode,
        reasoning=form.reasoning,
        rules=tuple(rules.values()),
        samplings=make_samplings(build_spec),
        messages_per_row=config.messages_per_row,
        prompts=build_spec.prompts,
        seed=config.seed_number,
        reproducible=config.sampling.reproducible,
        acceptance=config.acceptance,
    )


def make_samplings(build_spec: BuildSpec) -> tuple[SamplingPair, ...]:
    """The pairs that rows choose from: each setting for the user's messages with each for the assistant's.

    A row's sampling_key is its index: with n settings for answers, n times the user's plus the answer's.
    """
    config, form = build_spec.config, build_spec.chat_format
    return tuple(
        SamplingPair(
            user=Sampling(
                settings=user, stop_token_ids=form.user_stop_token_ids, stop_strings=form.stop_strings
            ),
            assistant=Sampling(
                settings=assistant,
                stop_token_ids=form.assistant_stop_token_ids,
                stop_strings=form.stop_strings,
            ),
            weight=weight * other_weight,
        )
        for user, weight in config.sampling.mix("user")
        for assistant, other_weight in config.sampling.mix("assistant")
    )


def _assistant_names(form: ChatFormat) -> list[str]:
    """The plain words by which the template names the assistant, such as "assistant" or "model"."""
    header = form.user_to_assistant
    for marker in sorted(form.role_markers, key=len, reverse=True):
        header = header.replace(marker, "\n")
    return [line.strip() for line in header.splitlines() if line.strip().isalpha()]


def vllm_engine(spec: WorkerSpec) -> VllmEngine:
    """The real engine of a build."""
    config = spec.build_spec.config
    return start_vllm(
        VllmSettings(
            engine=config.engine,
            model=spec.build_spec.model.location,
            revision=spec.build_spec.model.revision,
            device=spec.device,
            seed=spec.engine_seed,
            trust_remote_code=config.model.trust_remote_code,
            distributed_executor_backend=spec.distributed_executor_backend,
            first_tokens=config.sampling.uses_first_tokens,
            ray_metrics=config.engine.vllm_metrics and spec.on_ray,
        )
    )


def make_window(spec: WorkerSpec, figures: EngineFigures) -> AdmissionWindow:
    """The window that admits conversations to an engine of these figures."""
    rounds, messages = spec.build_spec.config.rounds, spec.build_spec.config.messages_per_row
    return AdmissionWindow(
        figures,
        cohort_size=None if rounds.cohort_size == "auto" else rounds.cohort_size,
        cohorts_in_flight=None if rounds.cohorts_in_flight == "auto" else rounds.cohorts_in_flight,
        turns=messages / 2,
        tokens_per_turn=expected_turn_tokens(spec, figures),
    )


def expected_turn_tokens(spec: WorkerSpec, figures: EngineFigures) -> int:
    """Tokens that a turn adds to a conversation, before any turn has ended."""
    sampling, messages = spec.build_spec.config.sampling, spec.build_spec.config.messages_per_row
    allowed = sampling.max_tokens("user") + (sampling.max_tokens("assistant") if messages > 1 else 0)
    return min(figures.max_model_len, int(allowed * EXPECTED_FILL))
