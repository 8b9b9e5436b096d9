"""vLLM behind the Engine protocol. No other package imports vLLM or torch."""
