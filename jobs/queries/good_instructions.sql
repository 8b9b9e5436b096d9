-- The instructions that are worth an answer: good ones, without near-duplicates.
--
--   magpie-ray select s3://BUCKET/kept --sql jobs/queries/good_instructions.sql --from rows=s3://BUCKET/instructions \
--     --from labels=s3://BUCKET/quality --from duplicates=s3://BUCKET/duplicates
--
-- labels has input_quality; duplicates is the output of `dedupe`. Answers cost most, so filter before them.
SELECT rows.*, input_quality
FROM rows JOIN labels USING (row_id) JOIN duplicates USING (row_id)
WHERE input_quality IN ('good', 'excellent')
  AND repeat_count = 0
ORDER BY row_id
