"""The client of the read side: ask, export, be told of usage. Needs the client install alone.

from totalizer.client import Client

with Client("http://127.0.0.1:3000", "tz_…") as client:
    answer = client.query(metrics=["executions"], aggregation_window="1d", group_by=["team_id"])
    answer.to_pandas()
"""

from totalizer.client.answers import Answer, RealTime, Usage
from totalizer.client.client import Client
from totalizer.client.errors import ServerRefused, ServerUnreachable
from totalizer.client.export import EventStream, Export

__all__ = ["Answer", "Client", "EventStream", "Export", "RealTime", "ServerRefused", "ServerUnreachable", "Usage"]
