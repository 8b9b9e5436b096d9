"""The chat format of a model: what its chat template writes around messages, as text and as token ids.

Magpie (arXiv 2406.08464) gives a chat model only the text that its template writes before a user's message,
so that the model writes the instruction itself. `derive` finds this text, and every other text around
messages, in any tokenizer with a chat template. Read in this order:

    format          ChatFormat, the result, and the prompts that it makes
    derivation      derive: the order of the steps
    template        renders a template with sentinels: the texts around messages
    encoder         text to token ids
    markers         what ends a message; which markers a message must not contain
    system_prompts  the prefix of each system prompt
    thinking        how a template switches thinking on and off
    custom          a format from the user's own function
    of_model        the format of a loaded model: derived or custom, within the model's ids
    dialogue        whole dialogues, for a model that judges them
    describe        the fields of the `template` command

Invariants: nothing depends on a model's name. Ids are those that the whole dialogue has when it is tokenized,
with at most one beginning-of-sequence token; `ChatFormat.warnings` names the exceptions.
"""

from magpie_ray.chat_format.derivation import derive, message_ids
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix

__all__ = ["ChatFormat", "SystemPrefix", "derive", "message_ids"]
