"""How the bundled model is made, and made again with the chat formats of other families.

    tokenizer  one that knows the corpus' words, and the same with other markers
    families   chat formats in the manner of other families; templates/ has their templates
    batches    conversations as rows of tokens
    learning   the model's size, its training, its files

jobs/train_tiny_chat.py has the commands.
"""
