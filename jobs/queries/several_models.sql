-- The builds of several models as one set. Files get one size: the same query over one build compacts it.
--
--   magpie-ray select s3://BUCKET/all --sql jobs/queries/several_models.sql --rows-per-file 500000 \
--     --from first=s3://BUCKET/llama --from second=s3://BUCKET/qwen
--
-- source_row_id is the row's id in its own build; model_name says which.
SELECT * FROM first
UNION ALL BY NAME
SELECT * FROM second
