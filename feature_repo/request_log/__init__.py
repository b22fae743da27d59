"""The request log: what servers answered, as parquet; the contract between who writes it and who reads it."""
