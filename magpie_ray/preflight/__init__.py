"""Everything that is looked up and checked before anything costly starts.

Read build_spec (a config with its seed, model, chat format and prompts resolved), existing and target (the
build that is already at the output), if_exists (whether to resume that build), checks (the output, this
machine's vLLM), engine_arguments (engine.extra against that vLLM).

Invariants: whatever can be known to be wrong without a cluster is refused here, in one clear message; no
cluster is touched and no weights are loaded.
"""
