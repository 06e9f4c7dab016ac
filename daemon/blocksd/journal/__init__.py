"""The durable log of revisions in SQLite: schema, reading, writing, intents and results of requests."""
