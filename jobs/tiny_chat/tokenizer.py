"""tiny_chat's tokenizer: made from the corpus, and the same with the markers of another family.

What always holds: any text can be encoded; words of the corpus are tokens of their own; newlines are never
joined with what stands beside them.
"""

import json
from collections import Counter

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jobs.tiny_chat.corpus import dialogues
from jobs.tiny_chat.families import Family

LLAMA_3_STYLE_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)
_BOS, _EOS, _PAD = "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"
_SPECIALS = [_PAD, _BOS, "<|start_header_id|>", "<|end_header_id|>", _EOS]

SPACE = "Ġ"  # as byte-level tokens write it
_FRAGMENTS = 400  # tokens for text that is not in the corpus: the 256 bytes and frequent parts of words
_WORD_COUNT = 8  # a word of the corpus seen this often is a token of its own


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that it encodes any text, in which the corpus' words are whole."""
    # Newlines are a piece of their own: the pre-query text ends with them, and must have the same tokens
    # whether the user's text follows or not.
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s*[\r\n]+| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    texts = [message["content"] for messages in dialogues(20_000, seed) for message in messages]
    texts += ["system\n\n", "user\n\n", "assistant\n\n", "model\n"] * _WORD_COUNT
    fragments = Tokenizer(models.BPE())
    fragments.pre_tokenizer = pieces
    trainer = trainers.BpeTrainer(
        vocab_size=_FRAGMENTS + len(_SPECIALS),
        special_tokens=_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fragments.train_from_iterator(texts, trainer)
    # Names in one piece can't be put together wrongly. `ignore_merges` takes a word that is in the
    # vocabulary as it is; merges alone would need thousands of tokens for it.
    learned = json.loads(fragments.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    words = Counter(word for text in texts for word, _ in pieces.pre_tokenize_str(text))
    for word, count in words.most_common():
        if count >= _WORD_COUNT:
            vocabulary.setdefault(word, len(vocabulary))
    merges = [tuple(merge) for merge in learned["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    backend.add_special_tokens(_SPECIALS)
    backend.pre_tokenizer = pieces
    backend.decoder = decoders.ByteLevel()
    return _finished(backend, bos=_BOS, eos=_EOS, pad=_PAD, template=LLAMA_3_STYLE_TEMPLATE)


def with_markers(tokenizer: PreTrainedTokenizerFast, family: Family) -> PreTrainedTokenizerFast:
    """The same tokens in the same order without the special ones, behind them those of the family.

    Where its messages begin with a space, capitalised words have a token with it, too.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    ordinary = [token for token in model["vocab"] if token not in _SPECIALS]
    if family.spaced:
        capitalised = [token for token in ordinary if token[0].isascii() and token[0].isupper()]
        ordinary += [SPACE + token for token in capitalised if SPACE + token not in model["vocab"]]
    vocabulary = {token: index for index, token in enumerate(ordinary)}
    merges = [tuple(merge) for merge in model["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    backend.add_special_tokens(list(family.specials))
    backend.add_tokens(list(family.marks))
    backend.pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    backend.decoder = tokenizer.backend_tokenizer.decoder
    return _finished(backend, bos=family.bos, eos=family.eos, pad=family.pad, template=family.template)


def _finished(
    backend: Tokenizer, *, bos: str | None, eos: str, pad: str, template: str
) -> PreTrainedTokenizerFast:
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
