"""tiny_chat's tokenizer, trained on the corpus.

Invariants: any text can be encoded; a word of the corpus is one token; a token with a newline holds
nothing but whitespace.
"""

import json
from collections import Counter

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jobs.tiny_chat.corpus import dialogues

# In the style of Llama 3.
_CHAT_TEMPLATE = (
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

_FRAGMENTS = 400  # tokens for text outside the corpus: the 256 bytes and frequent parts of words
_WORD_COUNT = 8  # a word that occurs this often in the corpus is one token


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that has one token for each word of the corpus."""
    # Newlines are a piece of their own: the pre-query text ends with them and must have the same tokens with
    # and without the user's text behind it.
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
    # A name that is one token can't be put together wrongly. With `ignore_merges` a word of the vocabulary
    # needs no merges; merges would need thousands of intermediate tokens.
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
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A $B", special_tokens=[(_BOS, backend.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
