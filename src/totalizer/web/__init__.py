"""HTTP: the hot ingest routes, the API behind them, problem documents, and the page."""
