"""tiny_chat, the bundled model: a small Llama chat model to try and test the method with.

- config.json, generation_config.json, model.safetensors: the model (Llama architecture, float32)
- tokenizer.json, tokenizer_config.json, chat_template.jinja: its tokenizer and chat template
- corpus.py: the conversations it was trained on, and judges of what it writes
- facts.py: the tables behind them; relations.py: the words to ask for what the tables say
- README.md: the model card: how it was made, what it measures, what it is not

jobs/train_tiny_chat.py makes the files; README.md has the command.
"""
