"""Chat templates in the manner of published ones, and the texts that each is known to write.

They are short, and behave as their models: what is folded, trimmed, dated, dropped, opened and switched is.
`generation` asks for an answer, as the template does by itself; `thinking` and `plain` do with thinking on and
off (None: the template knows of none); `system` is the prefix with the system text SYS (None: refused).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    name: str
    template: str
    tokens: tuple[str, ...]
    pre_query: str
    system: str | None
    generation: str
    history: str
    next_user: str
    thinking: str | None = None
    plain: str | None = None
    eos: str = "<eos>"
    bos: str = "<bos>"
    turns: bool = True


_IM = ("<|im_start|>", "<|im_end|>", "<eos>")
_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_IM_USER, _IM_ANSWER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"

# Earlier reasoning is dropped; the last answer, if nothing follows it, gets a block even where it has none.
_QWEN_TURNS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set thought = m.reasoning_content if m.reasoning_content is string else '' %}{% set said = m.content %}"
    "{% if not thought and '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') }}{% else %}{{ said }}{% endif %}"
    "<|im_end|>\n{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
_R1_TURNS = (
    "{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}"
    "{% elif m.role == 'assistant' %}{% set said = m.content %}"
    "{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
)
_R1 = ("<bos>", "<eos>", "<|User|>", "<|Assistant|>", "<think>", "</think>")
_GLM = ("<|system|>", "<|user|>", "<|assistant|>", "<eos>", "[gMASK]", "<sop>")
_COHERE = (
    "<bos>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)
_GPT_SYSTEM = (
    "<|start|>system<|message|>You are a large language model.\nKnowledge cutoff: 2024-06\nCurrent date: "
    "2024-07-26\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final.<|end|>"
)
_SMOL_SYSTEM = (
    "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 26 July 2024\n"
    "Reasoning Mode: /think\n\n## Custom Instructions\n\n"
)
_GRANITE_SYSTEM = (
    "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nToday's Date: July 26, 2024.\n"
    "You are Granite. You are a helpful AI assistant.<|end_of_text|>\n"
)
_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
_LLAMA_3_SYSTEM = (
    _HEADER.format("system") + "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
)

FAMILIES = (
    Family(
        name="Qwen3",
        template=_QWEN_TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{% endif %}",
        tokens=(*_IM, "<think>", "</think>"),
        eos="<|im_end|>",
        pre_query=_IM_USER,
        system=f"<|im_start|>system\nSYS<|im_end|>\n{_IM_USER}",
        generation=_IM_ANSWER,
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
        thinking=_IM_ANSWER,
        plain=f"{_IM_ANSWER}<think>\n\n</think>\n\n",
    ),
    Family(
        name="Qwen3-Thinking, QwQ",
        template=_QWEN_TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
        tokens=(*_IM, "<think>", "</think>"),
        eos="<|im_end|>",
        pre_query=_IM_USER,
        system=f"<|im_start|>system\nSYS<|im_end|>\n{_IM_USER}",
        generation=f"{_IM_ANSWER}<think>\n",
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
        thinking=f"{_IM_ANSWER}<think>\n",
        plain=f"{_IM_ANSWER}<think>\n\n</think>\n\n",
    ),
    Family(
        name="Qwen3.5",
        template=_QWEN_TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
        "{% else %}{{ '<think>\n' }}{% endif %}{% endif %}",
        tokens=(*_IM, "<think>", "</think>"),
        eos="<|im_end|>",
        pre_query=_IM_USER,
        system=f"<|im_start|>system\nSYS<|im_end|>\n{_IM_USER}",
        generation=f"{_IM_ANSWER}<think>\n",
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
        thinking=f"{_IM_ANSWER}<think>\n",
        plain=f"{_IM_ANSWER}<think>\n\n</think>\n\n",
    ),
    Family(
        name="ChatML, Qwen3-Instruct-2507",
        template=_TURNS + _ASK,
        tokens=_IM,
        eos="<|im_end|>",
        pre_query=_IM_USER,
        system=f"<|im_start|>system\nSYS<|im_end|>\n{_IM_USER}",
        generation=_IM_ANSWER,
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
    ),
    Family(
        name="ChatML, default system text",
        template="{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
        + _TURNS
        + _ASK,
        tokens=_IM,
        eos="<|im_end|>",
        pre_query=f"<|im_start|>system\nYou are kind.<|im_end|>\n{_IM_USER}",
        system=f"<|im_start|>system\nSYS<|im_end|>\n{_IM_USER}",
        generation=_IM_ANSWER,
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
    ),
    Family(
        name="ChatML, no line breaks, bos",
        template="{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
        tokens=(*_IM, "<bos>", "<|im_sep|>"),
        pre_query="<bos><|im_start|>user<|im_sep|>",
        system="<bos><|im_start|>system<|im_sep|>SYS<|im_end|><|im_start|>user<|im_sep|>",
        generation="<|im_end|><|im_start|>assistant<|im_sep|>",
        history="<|im_end|><|im_start|>assistant<|im_sep|>",
        next_user="<|im_end|><|im_start|>user<|im_sep|>",
    ),
    Family(
        name="DeepSeek-R1",
        template=_R1_TURNS + "{{ '<|Assistant|>' + said + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}",
        tokens=_R1,
        pre_query="<bos><|User|>",
        system="<bos>SYS<|User|>",
        generation="<|Assistant|><think>\n",
        history="<|Assistant|>",
        next_user="<eos><|User|>",
        thinking="<|Assistant|><think>\n",
        plain="<|Assistant|><think>\n\n</think>\n\n",
    ),
    Family(
        name="DeepSeek-R1-Distill, early",
        template=_R1_TURNS + "{{ '<|Assistant|>' + said + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}",
        tokens=_R1,
        pre_query="<bos><|User|>",
        system="<bos>SYS<|User|>",
        generation="<|Assistant|>",
        history="<|Assistant|>",
        next_user="<eos><|User|>",
        thinking="<|Assistant|>",
        plain="<|Assistant|><think>\n\n</think>\n\n",
    ),
    Family(
        name="DeepSeek-V3.1",
        template="{% if thinking is not defined %}{% set thinking = enable_thinking if enable_thinking is defined "
        "else false %}{% endif %}"
        + _R1_TURNS
        + "{{ '<|Assistant|></think>' + said + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|>' + ('<think>' if thinking else '</think>') }}{% endif %}",
        tokens=_R1,
        pre_query="<bos><|User|>",
        system="<bos>SYS<|User|>",
        generation="<|Assistant|></think>",
        history="<|Assistant|></think>",
        next_user="<eos><|User|>",
        thinking="<|Assistant|><think>",
        plain="<|Assistant|></think>",
    ),
    Family(
        name="GLM-4",
        template="[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        tokens=_GLM,
        pre_query="[gMASK]<sop><|user|>\n",
        system="[gMASK]<sop><|system|>\nSYS<|user|>\n",
        generation="<|assistant|>",
        history="<|assistant|>\n",
        next_user="<|user|>\n",
    ),
    Family(
        name="GLM-4.5",
        template="[gMASK]<sop>{% set ns = namespace(last=-1) %}{% for m in messages if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endfor %}{% set off = enable_thinking is defined and not enable_thinking %}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content }}"
        "{{ '/nothink' if off and not m.content.endswith('/nothink') }}"
        "{% elif m.role == 'assistant' %}<|assistant|>{% set thought = m.reasoning_content or '' %}"
        "{{ '\n<think>' + (thought.strip() if loop.last else '') + '</think>\n' + m.content.strip() }}"
        "{% else %}{{ '<|system|>\n' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{{ '\n<think></think>' if off }}{% endif %}",
        tokens=(*_GLM, "<think>", "</think>", "/nothink"),
        pre_query="[gMASK]<sop><|user|>\n",
        system="[gMASK]<sop><|system|>\nSYS<|user|>\n",
        generation="<|assistant|>",
        history="<|assistant|>\n<think></think>\n",
        next_user="<|user|>\n",
        thinking="<|assistant|>",
        plain="/nothink<|assistant|>\n<think></think>",
    ),
    Family(
        name="gpt-oss",
        template="{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}"
        "{{ '<|start|>system<|message|>You are a large language model.\nKnowledge cutoff: 2024-06\nCurrent date: ' "
        "+ strftime_now('%Y-%m-%d') + '\n\nReasoning: ' + reasoning_effort + '\n\n# Valid channels: analysis, "
        "commentary, final.<|end|>' }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ '<|start|>developer<|message|># Instructions\n\n' + m.content + '\n\n<|end|>' }}"
        "{% elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
        "{% elif loop.last and not add_generation_prompt %}{% if 'thinking' in m %}"
        "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}"
        "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        tokens=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"),
        eos="<|return|>",
        pre_query=f"{_GPT_SYSTEM}<|start|>user<|message|>",
        system=f"{_GPT_SYSTEM}<|start|>developer<|message|># Instructions\n\nSYS\n\n<|end|><|start|>user<|message|>",
        generation="<|end|><|start|>assistant",
        history="<|end|><|start|>assistant<|channel|>final<|message|>",
        next_user="<|end|><|start|>user<|message|>",
        thinking="<|end|><|start|>assistant",
        plain="<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    Family(
        name="SmolLM3",
        template="{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
        "{% set mode = '/think' if enable_thinking else '/no_think' %}"
        "{{ '<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: ' "
        "+ strftime_now('%d %B %Y') + '\nReasoning Mode: ' + mode + '\n\n## Custom Instructions\n\n' }}"
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% elif enable_thinking %}"
        "You are SmolLM. Think between <think> and </think>.{% else %}You are SmolLM.{% endif %}"
        "{{ '\n\n<|im_end|>\n' }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{% elif m.role == 'assistant' %}"
        "{{ '<|im_start|>assistant\n' + ('' if enable_thinking else '<think>\n\n</think>\n') "
        "+ m.content.lstrip('\n') + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n' + ('' if enable_thinking else '<think>\n\n</think>\n') }}{% endif %}",
        tokens=(*_IM, "<think>", "</think>"),
        eos="<|im_end|>",
        pre_query=f"{_SMOL_SYSTEM}You are SmolLM. Think between <think> and </think>.\n\n<|im_end|>\n{_IM_USER}",
        system=f"{_SMOL_SYSTEM}SYS\n\n<|im_end|>\n{_IM_USER}",
        generation=_IM_ANSWER,
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
        thinking=_IM_ANSWER,
        plain=f"{_IM_ANSWER}<think>\n\n</think>\n",
    ),
    Family(
        name="EXAONE-4",
        template="{% for m in messages %}{% if m.role == 'assistant' %}{% set said = m.content %}"
        "{% if '</think>' in said %}{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '[|assistant|]\n' + said + '[|endofturn|]\n' }}"
        "{% else %}{{ '[|' + m.role + '|]\n' + m.content + ('\n' if m.role == 'user' else '[|endofturn|]\n') }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]\n' }}"
        "{% if enable_thinking is defined and enable_thinking is true %}{{ '<think>\n' }}"
        "{% else %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
        tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]", "<think>", "</think>"),
        eos="[|endofturn|]",
        pre_query="[|user|]\n",
        system="[|system|]\nSYS[|endofturn|]\n[|user|]\n",
        generation="\n[|assistant|]\n<think>\n\n</think>\n\n",
        history="\n[|assistant|]\n",
        next_user="[|endofturn|]\n[|user|]\n",
        thinking="\n[|assistant|]\n<think>\n",
        plain="\n[|assistant|]\n<think>\n\n</think>\n\n",
    ),
    Family(
        name="EXAONE-3.5",
        template="{% if messages[0].role != 'system' %}{{ '[|system|]You are EXAONE.[|endofturn|]\n' }}{% endif %}"
        "{% for m in messages %}{{ '[|' + m.role + '|]' + m.content + ('\n' if m.role == 'user' else "
        "'[|endofturn|]\n') }}{% endfor %}{% if add_generation_prompt %}[|assistant|]{% endif %}",
        tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
        eos="[|endofturn|]",
        pre_query="[|system|]You are EXAONE.[|endofturn|]\n[|user|]",
        system="[|system|]SYS[|endofturn|]\n[|user|]",
        generation="\n[|assistant|]",
        history="\n[|assistant|]",
        next_user="[|endofturn|]\n[|user|]",
    ),
    Family(
        name="Nemotron-Nano-2",
        template="{% set ns = namespace(think=true) %}{% for m in messages if m.role != 'assistant' %}"
        "{% if '/no_think' in m.content %}{% set ns.think = false %}{% endif %}{% endfor %}"
        "{{ '<SPECIAL_10>System\n' }}{% for m in messages if m.role == 'system' %}"
        "{{ m.content.replace('/no_think', '').strip() }}{% endfor %}{{ '\n\n' }}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<SPECIAL_11>User\n' + m.content.strip() + '\n' }}"
        "{% elif m.role == 'assistant' %}{% set said = m.content %}{% if '</think>' in said %}"
        "{% set said = said.split('</think>')[1].strip() %}{% endif %}"
        "{{ '<SPECIAL_11>Assistant\n' + said.strip() + '\n<SPECIAL_12>\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<SPECIAL_11>Assistant\n' + ('<think>\n\n' if ns.think else "
        "'<think></think>') }}{% endif %}",
        tokens=("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>", "<think>", "</think>"),
        eos="<SPECIAL_12>",
        pre_query="<SPECIAL_10>System\n\n\n<SPECIAL_11>User\n",
        system="<SPECIAL_10>System\nSYS\n\n<SPECIAL_11>User\n",
        generation="\n<SPECIAL_11>Assistant\n<think>\n\n",
        history="\n<SPECIAL_11>Assistant\n",
        next_user="\n<SPECIAL_12>\n\n<SPECIAL_11>User\n",
        thinking="\n<SPECIAL_11>Assistant\n<think>\n\n",
        plain="\n<SPECIAL_11>Assistant\n<think>\n\n\n</think>\n\n",
    ),
    Family(
        name="Seed-OSS",
        template="{% set bos_token = '<seed:bos>' %}{% set eos_token = '<seed:eos>' %}"
        "{% set think_end = '</seed:think>' %}{% for m in messages %}{{ bos_token + m.role + '\n' }}"
        "{% if m.reasoning_content %}{{ '<seed:think>' + m.reasoning_content + think_end + '\n' }}{% endif %}"
        "{{ m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ bos_token + 'assistant\n' }}"
        "{% endif %}",
        tokens=("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"),
        eos="<seed:eos>",
        bos="<seed:bos>",
        pre_query="<seed:bos>user\n",
        system="<seed:bos>system\nSYS<seed:eos><seed:bos>user\n",
        generation="<seed:eos><seed:bos>assistant\n",
        history="<seed:eos><seed:bos>assistant\n",
        next_user="<seed:eos><seed:bos>user\n",
        thinking="<seed:eos><seed:bos>assistant\n",
        plain="<seed:eos><seed:bos>assistant\n<seed:think></seed:think>\n",
    ),
    Family(
        name="Granite-3.3",
        template="{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% else %}"
        "{% set system = 'Knowledge Cutoff Date: April 2024.\nToday\\'s Date: ' + strftime_now('%B %d, %Y') "
        "+ '.\nYou are Granite.' %}{% if thinking %}{% set system = system + ' Write your thoughts between <think>"
        "</think> and your response between <response></response>.' %}{% else %}"
        "{% set system = system + ' You are a helpful AI assistant.' %}{% endif %}{% endif %}"
        "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}"
        "{% for m in messages if m.role != 'system' %}"
        "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
        tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        eos="<|end_of_text|>",
        pre_query=f"{_GRANITE_SYSTEM}<|start_of_role|>user<|end_of_role|>",
        system="<|start_of_role|>system<|end_of_role|>SYS<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
        generation="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        history="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        next_user="<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
        thinking="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        plain="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    ),
    Family(
        name="Magistral",
        template="{{ bos_token }}{% if messages[0].role == 'system' %}"
        "{{ '[SYSTEM_PROMPT]' + messages[0].content + '[/SYSTEM_PROMPT]' }}{% else %}[SYSTEM_PROMPT]First think: "
        "[THINK]here[/THINK]Then answer.[/SYSTEM_PROMPT]{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST]' + m.content + '[/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}"
        "{% endif %}{% endfor %}",
        tokens=(
            "<bos>",
            "<eos>",
            "[INST]",
            "[/INST]",
            "[SYSTEM_PROMPT]",
            "[/SYSTEM_PROMPT]",
            "[THINK]",
            "[/THINK]",
        ),
        pre_query="<bos>[SYSTEM_PROMPT]First think: [THINK]here[/THINK]Then answer.[/SYSTEM_PROMPT][INST]",
        system="<bos>[SYSTEM_PROMPT]SYS[/SYSTEM_PROMPT][INST]",
        generation="[/INST]",
        history="[/INST]",
        next_user="<eos>[INST]",
        thinking="[/INST]",
        plain="[/INST][THINK]\n\n[/THINK]\n\n",
    ),
    Family(
        name="Mistral-Small-3",
        template="{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% else %}"
        "{% set system = 'You are Mistral Small. Today is ' + strftime_now('%Y-%m-%d') + '.' %}{% endif %}"
        "{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST]' + m.content + '[/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}"
        "{% endif %}{% endfor %}",
        tokens=("<bos>", "<eos>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        pre_query="<bos>[SYSTEM_PROMPT]You are Mistral Small. Today is 2024-07-26.[/SYSTEM_PROMPT][INST]",
        system="<bos>[SYSTEM_PROMPT]SYS[/SYSTEM_PROMPT][INST]",
        generation="[/INST]",
        history="[/INST]",
        next_user="<eos>[INST]",
    ),
    Family(
        name="OLMo-2",
        template="{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\n' + m.content + '\n' }}"
        "{% elif m.role == 'user' %}{{ '<|user|>\n' + m.content + '\n' }}{% else %}"
        "{{ '<|assistant|>\n' + m.content + eos_token + ('' if loop.last else '\n') }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        tokens=("<bos>", "<eos>"),
        pre_query="<bos><|user|>\n",
        system="<bos><|system|>\nSYS\n<|user|>\n",
        generation="\n<|assistant|>\n",
        history="\n<|assistant|>\n",
        next_user="<eos>\n<|user|>\n",
    ),
    Family(
        name="Phi-3.5",
        template="{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        tokens=("<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        pre_query="<|user|>\n",
        system="<|system|>\nSYS<|end|>\n<|user|>\n",
        generation="<|end|>\n<|assistant|>\n",
        history="<|end|>\n<|assistant|>\n",
        next_user="<|end|>\n<|user|>\n",
    ),
    Family(
        name="Phi-4-mini",
        template="{% for m in messages %}{% if m.role == 'system' and 'tools' in m and m.tools is not none %}"
        "{{ '<|system|>' + m.content + '<|tool|>' + m.tools + '<|/tool|><|end|>' }}{% else %}"
        "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
        tokens=("<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        pre_query="<|user|>",
        system="<|system|>SYS<|end|><|user|>",
        generation="<|end|><|assistant|>",
        history="<|end|><|assistant|>",
        next_user="<|end|><|user|>",
    ),
    Family(
        name="Gemma-3",
        template="{{ bos_token }}{% set first = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}"
        "{% set first = (messages[0].content if messages[0].content is string else messages[0].content[0].text) "
        "+ '\n\n' %}{% set rest = messages[1:] %}{% endif %}{% for m in rest %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (first if loop.first else '') }}"
        "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
        "{{ part.text | trim }}{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        tokens=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        pre_query="<bos><start_of_turn>user\n",
        system="<bos><start_of_turn>user\nSYS\n\n",
        generation="<end_of_turn>\n<start_of_turn>model\n",
        history="<end_of_turn>\n<start_of_turn>model\n",
        next_user="<end_of_turn>\n<start_of_turn>user\n",
    ),
    Family(
        name="Command-R",
        template="{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|><|' + ('CHATBOT' if m.role == "
        "'assistant' else m.role | upper) + '_TOKEN|>' + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        tokens=_COHERE,
        eos="<|END_OF_TURN_TOKEN|>",
        pre_query="<bos><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        system="<bos><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>SYS<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        generation="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        history="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        next_user="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    ),
    Family(
        name="Command-R7B",
        template="{{ bos_token }}{% if documents %}{% for d in documents %}{{ d.text }}{% endfor %}{% endif %}"
        "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\n' }}"
        "{% for m in messages if m.role == 'system' %}{{ '\n# Developer Preamble\n' + m.content }}{% endfor %}"
        "<|END_OF_TURN_TOKEN|>{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + m.content + '<|END_OF_TURN_TOKEN|>' }}"
        "{% elif m.role == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>' + m.content "
        "+ '<|END_RESPONSE|><|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        tokens=(*_COHERE, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        eos="<|END_OF_TURN_TOKEN|>",
        pre_query="<bos><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\n<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        system="<bos><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\n\n# Developer Preamble\nSYS"
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        generation="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        history="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>",
        next_user="<|END_RESPONSE|><|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    ),
    Family(
        name="Llama-2",
        template="{% set s = '' %}{% if messages[0].role == 'system' %}{% set s = '<<SYS>>\n' + messages[0].content "
        "+ '\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
        "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + ((s if loop.first else '') + m.content).strip() "
        "+ ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        tokens=("<bos>", "<eos>"),
        pre_query="<bos>[INST] ",
        system="<bos>[INST] <<SYS>>\nSYS\n<</SYS>>\n\n",
        generation=" [/INST]",
        history=" [/INST] ",
        next_user=" <eos><bos>[INST] ",
    ),
    Family(
        name="Llama-3.3",
        template="{% if not date_string is defined %}{% if strftime_now is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}"
        "{% endif %}{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
        "2023\nToday Date: ' + date_string + '\n\n' }}{% if messages[0].role == 'system' %}"
        "{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
        "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim "
        "+ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        tokens=("<bos>", "<eos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        eos="<|eot_id|>",
        pre_query=f"<bos>{_LLAMA_3_SYSTEM}<|eot_id|>{_HEADER.format('user')}",
        system=f"<bos>{_LLAMA_3_SYSTEM}SYS<|eot_id|>{_HEADER.format('user')}",
        generation=f"<|eot_id|>{_HEADER.format('assistant')}",
        history=f"<|eot_id|>{_HEADER.format('assistant')}",
        next_user=f"<|eot_id|>{_HEADER.format('user')}",
    ),
    Family(
        name="Llama-4",
        template="{{ bos_token }}{% for m in messages %}{{ '<|header_start|>' + m.role + '<|header_end|>\n\n' }}"
        "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
        "{% if part.type == 'image' %}<|image|>{% else %}{{ part.text | trim }}{% endif %}{% endfor %}{% endif %}"
        "<|eot|>{% endfor %}{% if add_generation_prompt %}{{ '<|header_start|>assistant<|header_end|>\n\n' }}"
        "{% endif %}",
        tokens=("<bos>", "<eos>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|image|>"),
        eos="<|eot|>",
        pre_query="<bos><|header_start|>user<|header_end|>\n\n",
        system="<bos><|header_start|>system<|header_end|>\n\nSYS<|eot|><|header_start|>user<|header_end|>\n\n",
        generation="<|eot|><|header_start|>assistant<|header_end|>\n\n",
        history="<|eot|><|header_start|>assistant<|header_end|>\n\n",
        next_user="<|eot|><|header_start|>user<|header_end|>\n\n",
    ),
    Family(
        name="MiniCPM",
        template="{% for m in messages %}{% if m.role == 'user' %}{{ '<用户>' + m.content.strip() + '<AI>' }}"
        "{% else %}{{ m.content.strip() }}{% endif %}{% endfor %}",
        tokens=("<eos>",),
        pre_query="<用户>",
        system="SYS<用户>",
        generation="<AI>",
        history="<AI>",
        next_user="<用户>",
    ),
    Family(
        name="Baichuan-2",
        template="{% for m in messages %}{{ '<reserved_106>' if m.role == 'user' else '<reserved_107>' if m.role == "
        "'assistant' }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reserved_107>{% endif %}",
        tokens=("<eos>", "<reserved_106>", "<reserved_107>"),
        pre_query="<reserved_106>",
        system="SYS<reserved_106>",
        generation="<reserved_107>",
        history="<reserved_107>",
        next_user="<reserved_106>",
    ),
    Family(
        name="Vicuna",
        template="{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content + ' ' }}"
        "{% set messages = messages[1:] %}{% else %}{{ 'A chat with a polite assistant. ' }}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}{% else %}"
        "{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        tokens=("<bos>", "<eos>"),
        pre_query="<bos>A chat with a polite assistant. USER: ",
        system="<bos>SYS USER: ",
        generation=" ASSISTANT:",
        history=" ASSISTANT: ",
        next_user="<eos>USER: ",
    ),
    Family(
        name="Alpaca",
        template="{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}"
        "{% set messages = messages[1:] %}{% else %}{{ 'Below is an instruction. Write a response.\n\n' }}{% endif %}"
        "{% for m in messages %}{{ '### ' + ('Instruction' if m.role == 'user' else 'Response') + ':\n' + m.content "
        "+ '\n\n' }}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
        tokens=("<eos>",),
        pre_query="Below is an instruction. Write a response.\n\n### Instruction:\n",
        system="SYS\n\n### Instruction:\n",
        generation="\n\n### Response:\n",
        history="\n\n### Response:\n",
        next_user="\n\n### Instruction:\n",
    ),
    Family(
        name="a system text that moves",
        template="{{ bos_token }}{% set s = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + (s if loop.last else '') + m.content "
        "+ '[/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
        tokens=("<bos>", "<eos>", "[INST]", "[/INST]"),
        pre_query="<bos>[INST]",
        system="<bos>[INST]SYS\n\n",
        generation="[/INST]",
        history="[/INST]",
        next_user="<eos>[INST]",
    ),
    Family(
        name="typed parts alone",
        template="{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{{ part.text }}"
        "{% endfor %}<|im_end|>\n{% endfor %}" + _ASK,
        tokens=_IM,
        pre_query=_IM_USER,
        system=f"<|im_start|>system\nSYS<|im_end|>\n{_IM_USER}",
        generation=_IM_ANSWER,
        history=_IM_ANSWER,
        next_user=f"<|im_end|>\n{_IM_USER}",
    ),
)
