"""What a request to a server may end in.

TotalizerError
├── ServerRefused       the server answered with a problem document
└── ServerUnreachable   there was no whole answer, however often it was tried
"""

from __future__ import annotations

from typing import Any

from totalizer.errors import TotalizerError


class ServerRefused(TotalizerError):
    """The server refused a request.

    Args:
        status: of the answer.
        problem: its problem document (docs/reference/errors.md); empty if it had none.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status, self.problem = status, problem
        super().__init__(f"the server refused ({status} {self.code}): {self.detail}")

    @property
    def code(self) -> str:
        """The reason, from the closed set."""
        return str(self.problem.get("code", "unknown"))

    @property
    def detail(self) -> str:
        """What was wrong, for people."""
        return str(self.problem.get("detail", "no reason given"))


class ServerUnreachable(TotalizerError):
    """The server did not give a whole answer."""
