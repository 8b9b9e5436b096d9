"""What lies at an output: Parquet files and the records beside them."""
