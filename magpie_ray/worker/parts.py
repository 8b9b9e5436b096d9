"""Makes the parts of a worker from its spec: the recipe of rows, the vLLM engine, the admission window."""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from magpie_ray.acceptance import RuleContext, build_rules
from magpie_ray.chat_format import ChatFormat, message_ids
from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.engine_extra import speculation_of
from magpie_ray.config.sampling import EXPECTED_FILL
from magpie_ray.config.score import ScoreConfig
from magpie_ray.engine.message_heads import MAX_BIASES, FirstTokensEngine
from magpie_ray.engine.protocol import Engine, EngineFigures, Sampling
from magpie_ray.engine.token_bytes import token_bytes
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.engine import VllmEngine, start_vllm
from magpie_ray.engine.vllm.scoring import start_vllm_scoring
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import Recipe, SamplingPair, Start
from magpie_ray.inputs.blocks import InputBlocks
from magpie_ray.inputs.copy import read_index
from magpie_ray.model.tokenizer import LoadedTokenizer, load_tokenizer
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.inputs import prefixes_of as prefixes_of_model
from magpie_ray.preflight.inputs import require_index
from magpie_ray.sources.reader import SourceReader
from magpie_ray.worker.input_feed import InputFeed
from magpie_ray.worker.model_download import fetch_weights
from magpie_ray.worker.spec import AnyEngine, WorkerSpec
from magpie_ray.worker.starts import InputStarts, SourceStarts, make_prefixes_of


def make_recipe(spec: WorkerSpec, tokenizer: Any = None) -> Recipe:
    """The recipe of the build's rows. tokenizer: decodes them; None loads the model's own.

    ModelError when this machine does not have the build's model.
    """
    build_spec = spec.build_spec
    config, form = build_spec.writing, build_spec.form
    build_spec.model.check()
    tokenizer = tokenizer or load_tokenizer_of(build_spec).tokenizer

    def decode(messages: list[list[int]]) -> list[str]:
        texts: list[str] = tokenizer.batch_decode(
            messages, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        # A format's prefix may leave the white space before a message to the model (see ChatFormat).
        return [text.strip() for text in texts]

    encoder = Encoder(tokenizer)

    def encode(text: str, index: int, start: Start, generated: Collection[int]) -> list[int]:
        prefix = start.known_as or form.start(start.system_prompt.text if start.system_prompt else None)
        return message_ids(encoder, form, text, index=index, prefix=prefix, generated=generated)

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
        markers=encoder.markers,
        knows=encoder.knows,
        reasoning=form.reasoning,
        rules=rules,
        samplings=make_samplings(build_spec),
        messages_per_row=config.messages_per_row,
        prompts=build_spec.prompts,
        seed=config.seed_number,
        reproducible=config.sampling.reproducible,
        acceptance=config.acceptance,
        answers=config.n if isinstance(config, AnswerConfig) else None,
    )


def make_feed(spec: WorkerSpec, *, on_loaded: Callable[[], None]) -> InputFeed[Start] | None:
    """What rows start with, loaded ahead; None where they only draw a prompt.

    on_loaded: see InputFeed. PreflightError when the copy of the inputs in the build can't be seen from here.
    """
    build_spec, config = spec.build_spec, spec.build_spec.writing
    if isinstance(config, AnswerConfig):
        return _source_feed(spec, config, on_loaded=on_loaded)
    form, inputs = build_spec.form, build_spec.inputs
    if inputs is None:
        return None
    index = require_index(read_index(spec.storage), inputs, spec.storage)
    blocks = InputBlocks(spec.storage, index, seed=config.seed_number, pick=config.inputs.pick)
    prefixes_of = make_prefixes_of(prefixes_of_model(config, load_tokenizer_of(build_spec), form), form)
    return InputFeed(InputStarts(blocks, prefixes_of), number=inputs.number, on_loaded=on_loaded)


def _source_feed(
    spec: WorkerSpec, config: AnswerConfig, *, on_loaded: Callable[[], None]
) -> InputFeed[Start]:
    """The rows of the source that a pass answers."""
    form, source, loaded = spec.build_spec.form, spec.build_spec.source, load_tokenizer_of(spec.build_spec)
    assert source is not None, "a pass has a source"
    starts = SourceStarts(
        SourceReader(source, config.source.storage_options, config.source.keep),
        make_prefixes_of(prefixes_of_model(config, loaded, form), form),
        config=config,
        form=form,
        encoder=Encoder(loaded.tokenizer),
    )
    return InputFeed(starts, number=source.num_rows * config.n, on_loaded=on_loaded)


def load_tokenizer_of(build_spec: BuildSpec) -> LoadedTokenizer:
    """The tokenizer of the build's model, with the template that its rows need."""
    config = build_spec.config
    has_prefixes = build_spec.inputs or build_spec.source
    return _loaded(
        build_spec.model.location,
        build_spec.model.revision,
        config.model.trust_remote_code,
        config.model.chat_template_name if has_prefixes else None,
    )


@lru_cache(maxsize=1)
def _loaded(
    name: str, revision: str | None, trust_remote_code: bool, template: str | None
) -> LoadedTokenizer:
    """Of one model; a worker needs it in two places."""
    return load_tokenizer(
        name, revision=revision, trust_remote_code=trust_remote_code, template_name=template
    )


def make_samplings(build_spec: BuildSpec) -> tuple[SamplingPair, ...]:
    """The pairs that rows choose from: each setting for the user's messages with each for the assistant's.

    A row's sampling_key is its index: with n settings for answers, n times the user's plus the answer's.
    """
    config, form = build_spec.writing, build_spec.form
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


def vllm_engine(spec: WorkerSpec) -> AnyEngine:
    """The real engine of a job."""
    config = spec.build_spec.config
    if isinstance(config, ScoreConfig):
        return start_vllm_scoring(_vllm_settings(spec), config.kind)
    return _writing_engine(spec)


def _writing_engine(spec: WorkerSpec) -> Engine:
    config, model = spec.build_spec.writing, spec.build_spec.model
    engine = plain_vllm_engine(spec)
    if not config.sampling.uses_first_tokens:
        return engine
    tokenizer = load_tokenizer(
        model.location, revision=model.revision, trust_remote_code=config.model.trust_remote_code
    ).tokenizer
    vocabulary = token_bytes(tokenizer).resized(engine.vocab_size)
    max_biases = 0 if speculation_of(config.engine.extra) else MAX_BIASES
    return FirstTokensEngine(engine, vocabulary, max_biases=max_biases)


def plain_vllm_engine(spec: WorkerSpec) -> VllmEngine:
    """The engine of a model that writes, without the rules for first tokens."""
    return start_vllm(_vllm_settings(spec))


def _vllm_settings(spec: WorkerSpec) -> VllmSettings:
    """What vLLM starts with, once the weights are on this machine."""
    config = spec.build_spec.config
    fetch_weights(spec.build_spec.model, config.engine)
    return VllmSettings(
        engine=config.engine,
        model=spec.build_spec.model.location,
        revision=spec.build_spec.model.revision,
        device=spec.device,
        seed=spec.engine_seed,
        trust_remote_code=config.model.trust_remote_code,
        distributed_executor_backend=spec.distributed_executor_backend,
        ray_metrics=config.engine.vllm_metrics and spec.on_ray,
        seeded=not isinstance(config, ScoreConfig) and config.sampling.reproducible,
    )


def make_window(spec: WorkerSpec, figures: EngineFigures) -> AdmissionWindow:
    """The window that admits conversations to an engine of these figures."""
    rounds, messages = spec.build_spec.writing.rounds, spec.build_spec.writing.messages_per_row
    return AdmissionWindow(
        figures,
        cohort_size=None if rounds.cohort_size == "auto" else rounds.cohort_size,
        cohorts_in_flight=None if rounds.cohorts_in_flight == "auto" else rounds.cohorts_in_flight,
        turns=max(1, messages / 2) if spec.build_spec.source else messages / 2,
        tokens_per_turn=expected_turn_tokens(spec, figures),
    )


def expected_turn_tokens(spec: WorkerSpec, figures: EngineFigures) -> int:
    """Tokens that a turn adds to a conversation, before any turn has ended."""
    sampling, messages = spec.build_spec.writing.sampling, spec.build_spec.writing.messages_per_row
    allowed = sampling.max_tokens("user") + (sampling.max_tokens("assistant") if messages > 1 else 0)
    return min(figures.max_model_len, int(allowed * EXPECTED_FILL))
