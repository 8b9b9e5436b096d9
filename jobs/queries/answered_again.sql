-- The answers that were cut by max_tokens, replaced by those of another pass that had more.
--
--   magpie-ray select s3://BUCKET/whole --sql jobs/queries/answered_again.sql --from rows=s3://BUCKET/answers \
--     --from cut=s3://BUCKET/cut --from longer=s3://BUCKET/longer
--
-- cut is what cut_answers.sql took from rows; longer is the output of `answer` with cut as its source.
SELECT * FROM rows WHERE finish_reasons[-1] IS DISTINCT FROM 'length'
UNION ALL BY NAME
SELECT longer.* REPLACE (cut.source_row_id AS row_id) FROM longer JOIN cut ON longer.row_id = cut.row_id
ORDER BY row_id
