-- The filter of Magpie-Pro-300K-Filtered: good instructions with good answers, no near-duplicates, the longest 300,000.
--
--   magpie-ray select s3://BUCKET/filtered --sql jobs/queries/paper_filter.sql --from rows=s3://BUCKET/rows \
--     --from quality=s3://BUCKET/quality --from difficulty=s3://BUCKET/difficulty --from category=s3://BUCKET/category \
--     --from rewards=s3://BUCKET/rewards --from duplicates=s3://BUCKET/duplicates
--
-- quality, difficulty, category and rewards are outputs of `score`; duplicates is the output of `dedupe`.
-- Instructions that end with a colon announce a text that is missing. The bound of instruct_reward depends on the
-- reward model: look at its distribution first.
SELECT * FROM (
  SELECT rows.*, input_quality, difficulty, task_category, instruct_reward, min_neighbor_distance
  FROM rows
  JOIN quality USING (row_id)
  JOIN difficulty USING (row_id)
  JOIN category USING (row_id)
  JOIN rewards USING (row_id)
  JOIN duplicates USING (row_id)
  WHERE input_quality IN ('good', 'excellent')
    AND instruct_reward > -10
    AND repeat_count = 0
    AND instruction NOT LIKE '%:'
    AND finish_reasons[-1] = 'stop'
  ORDER BY length(response) DESC, row_id
  LIMIT 300000
)
ORDER BY row_id
