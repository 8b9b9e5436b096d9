-- Of several answers the one with the best reward, as conversations to train on.
--
--   magpie-ray select s3://BUCKET/best --sql jobs/queries/best_answer.sql \
--     --from rows=s3://BUCKET/answers --from scores=s3://BUCKET/rewards
--
-- rows has responses; scores has instruct_reward, a list with one reward for each of them. Rows whose best answer
-- was cut by max_tokens are left out, and so are rows without an answer.
SELECT
  row_id,
  list_append(conversation, {'role': 'assistant', 'content': responses[best]}) AS conversation,
  system_prompt,
  model_name,
  [finish_reasons[best]] AS finish_reasons,
  instruct_reward[best] AS instruct_reward
FROM (
  SELECT rows.*, instruct_reward, list_position(instruct_reward, list_max(instruct_reward)) AS best
  FROM rows JOIN scores USING (row_id)
)
WHERE finish_reasons[best] = 'stop'
ORDER BY row_id
