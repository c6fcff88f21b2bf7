"""Usage counters: fast in Redis, durable as events, billed from `merchant_usage`."""
