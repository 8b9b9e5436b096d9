-- The best and the worst of several answers, as a data set. `export --to preference` writes pairs as files.
--
--   magpie-ray select s3://BUCKET/pairs --sql jobs/queries/best_against_worst.sql \
--     --from rows=s3://BUCKET/answers --from scores=s3://BUCKET/rewards
--
-- rows has responses; scores has instruct_reward, a list with one reward for each of them.
SELECT
  row_id,
  conversation AS prompt,
  [{'role': 'assistant', 'content': best}] AS chosen,
  [{'role': 'assistant', 'content': worst}] AS rejected,
  score_chosen,
  score_rejected
FROM (
  SELECT
    rows.row_id,
    conversation,
    responses[list_position(instruct_reward, list_max(instruct_reward))] AS best,
    responses[list_position(instruct_reward, list_min(instruct_reward))] AS worst,
    list_max(instruct_reward) AS score_chosen,
    list_min(instruct_reward) AS score_rejected
  FROM rows JOIN scores USING (row_id)
)
WHERE best <> worst AND score_chosen - score_rejected >= 0.5
