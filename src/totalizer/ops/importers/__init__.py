"""Real input: Git histories, files of JSON lines, CloudEvents and web-server logs, sent to a running Totalizer.

Reading order: `source` (what an input must do), one of `git`, `ndjson`, `cloudevents`, `access_log`, then `run` (the
order of work), `sender` (HTTP) and `checkpoint` (where to go on). Needs the client install only.
"""
