"""Real input: Git histories, JSON lines, CloudEvents, web-server logs and batch files, sent to a running Totalizer.

Reading order: `source` (what an input must do), one of `git`, `ndjson`, `cloudevents`, `access_log`, `batch_files`,
then `run` (the order of work), `sender` (HTTP) and `checkpoint` (where to go on). Needs the client install only.
"""
