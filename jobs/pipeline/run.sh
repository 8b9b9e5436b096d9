#!/bin/bash
# From rows to a training set, step by step, with the bundled model on a CPU: what `make pipeline` runs.
#
#   jobs/pipeline/run.sh out/pipeline
#
# Each step writes an output of its own below that folder. The same command again has nothing to do, and after an
# interruption it goes on. It takes magpie-ray[curate] and datasets. In the environment:
#   ROWS=60             fewer rows, or more
#   EMBEDDINGS=FOLDER   an embedding model: near-duplicates by its vectors, and not by words
set -euo pipefail

out=${1:-out/pipeline}
rows=${ROWS:-400}
here=$(dirname "$0")
mkdir -p "$out"

magpie-ray generate "$here/instructions.yaml" num_rows="$rows" output.path="$out/instructions"
magpie-ray score "$here/quality.yaml" source.path="$out/instructions" output.path="$out/quality"

# Near-duplicates, and the instructions worth an answer.
steps=(instructions quality duplicates kept answers rewards best)
if [ -n "${EMBEDDINGS:-}" ]; then
  magpie-ray score "$here/embeddings.yaml" model.name="$EMBEDDINGS" source.path="$out/instructions" \
    output.path="$out/embeddings"
  magpie-ray dedupe "$out/instructions" "$out/duplicates" --embeddings "$out/embeddings"
  steps+=(embeddings)
else
  magpie-ray dedupe "$out/instructions" "$out/duplicates"
fi
magpie-ray select "$out/kept" --sql "$here/../queries/good_instructions.sql" --from rows="$out/instructions" \
  --from labels="$out/quality" --from duplicates="$out/duplicates"

# Four answers to each, and a reward for each answer.
magpie-ray answer "$here/answers.yaml" source.path="$out/kept" output.path="$out/answers"
python "$here/reward_model.py" "$out/reward-model"
magpie-ray score "$here/rewards.yaml" model.name="$out/reward-model" source.path="$out/answers" \
  output.path="$out/rewards"

# The best answers, to train on.
magpie-ray select "$out/best" --sql "$here/../queries/best_answer.sql" --from rows="$out/answers" \
  --from scores="$out/rewards"
[ -f "$out/best.jsonl" ] || magpie-ray export "$out/best" "$out/best.jsonl" --to messages

# The best answers against the worst. The file of the test is there before the other.
[ -f "$out/pairs.jsonl" ] || magpie-ray export "$out/answers" "$out/pairs.jsonl" --to preference \
  --scores "$out/rewards" --test-share 0.1 --force

for step in "${steps[@]}"; do magpie-ray verify "$out/$step"; done
python "$here/table.py" "$out"
