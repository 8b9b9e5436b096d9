-- Rows whose last message was cut by max_tokens, to be answered again with a larger one.
--
--   magpie-ray select s3://BUCKET/cut --sql jobs/queries/cut_answers.sql --from rows=s3://BUCKET/raw
--
-- `magpie-ray answer` leaves out the answer that stands there already.
SELECT * FROM rows WHERE finish_reasons[-1] = 'length'
