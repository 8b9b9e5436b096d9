-- At most so many rows of each category, those with the best rewards.
--
--   magpie-ray select s3://BUCKET/balanced --sql jobs/queries/category_quotas.sql \
--     --from rows=s3://BUCKET/raw --from scores=s3://BUCKET/scores
--
-- A category that is not in the list gets the last number.
SELECT rows.*, task_category, instruct_reward
FROM rows JOIN scores USING (row_id)
QUALIFY row_number() OVER (PARTITION BY task_category ORDER BY instruct_reward DESC, row_id) <=
  CASE task_category
    WHEN 'Math' THEN 50000
    WHEN 'Coding & Debugging' THEN 50000
    WHEN 'Information seeking' THEN 20000
    ELSE 10000
  END
ORDER BY row_id
