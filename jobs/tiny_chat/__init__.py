"""How the bundled model, tiny_chat, is made; jobs/train_tiny_chat.py has the command.

facts, relations  what the model knows
corpus            conversations about it, and judges of what the model writes
tokenizer         a tokenizer with a token for every word of the corpus
reward_pairs      right and wrong answers; reward_model: the bundled model with a head that tells them apart
batches           conversations as rows of tokens
learning          the model's size, its training, its files
"""
