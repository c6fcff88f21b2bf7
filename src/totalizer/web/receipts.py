"""Receipts: what an answer gives its sender to ask later what became of the events.

A receipt says which record of which journal holds the events, how many there are and when they came. It carries its own
seal, made with a key of the installation over all that and the organisation: nothing is stored for it, and nobody can
make one up or ask with somebody else's. docs/adr/0009-receipts.md
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, NamedTuple

from totalizer.clock import Clock
from totalizer.errors import Refusal, Refused
from totalizer.metrics import MEASURES
from totalizer.metrics.table import ACCEPTED

SECONDS_A_DAY = 86_400
#: Organisations whose seals are kept begun; beyond it the oldest are begun again.
ORGANIZATIONS_MAX = 10_000
#: Bytes of the seal: 2⁹⁶ guesses.
_SEAL_BYTES = 12
_FORM = re.compile(
    r"(?P<journal>[0-9a-f]{32})-(?P<sequence>[0-9a-f]{1,15})-(?P<accepted>[0-9]{1,9})-(?P<at>[0-9a-f]{1,11})-"
    r"(?P<seal>[0-9a-f]{24})"
).fullmatch
#: Has the receipt of an answer whose form is given by others.
HEADER = "totalizer-receipt"


def receipt_key(secret: str) -> bytes:
    """The key that receipts of an installation are sealed with; machines that share its secret share it."""
    return hmac.new(secret.encode(), b"receipts", hashlib.sha256).digest()


class Receipt(NamedTuple):
    """What a receipt says.

    Attributes:
        journal_id: UUID of the journal.
        sequence: number of the record in it.
        accepted: how many events it holds.
        received_s: when it came, seconds since 1970.
    """

    journal_id: str
    sequence: int
    accepted: int
    received_s: int


class Receipts:
    """Makes and reads receipts.

    Args:
        key: from `receipt_key`.
        journal_id: UUID of the journal that this process writes.
        clock: for their age.
        days: how long they are good for.
    """

    def __init__(self, key: bytes, journal_id: str, clock: Clock, *, days: int) -> None:
        self._sealer = hashlib.blake2b(key=key, digest_size=_SEAL_BYTES)
        self._accepted = MEASURES.series(ACCEPTED)
        #: By organisation: begun with it, so that the rest of the seal is one short hash.
        self._begun: dict[str, Any] = {}
        self._journal, self._clock, self._days = journal_id.replace("-", ""), clock, days

    def make(self, organization_id: str, sequence: int, accepted: int) -> bytes:
        """A receipt.

        Args:
            organization_id: who may ask with it.
            sequence: number of the journal's record.
            accepted: how many events it holds.
        """
        # Every way in makes one for each record that is on disk, and a repeated request is answered with the first's.
        self._accepted.add(accepted)
        text = f"{self._journal}-{sequence:x}-{accepted}-{self._clock.now_ns() // 1_000_000_000:x}"
        return f"{text}-{self._seal(organization_id, text.encode())}".encode()

    def read(self, token: str, organization_id: str) -> Receipt:
        """What a receipt says.

        Raises:
            Refused: it is none of this organisation's, or too old.
        """
        found = _FORM(token)
        text, _, seal = token.rpartition("-")
        if found is None or not hmac.compare_digest(seal.encode(), self._seal(organization_id, text.encode()).encode()):
            raise Refused(
                Refusal.NOT_FOUND, f"no receipt {token[:120]!r} of this organisation; use `receipt` of a 202 as it is"
            )
        journal, sequence, accepted, at = (found[name] for name in ("journal", "sequence", "accepted", "at"))
        receipt = Receipt(
            f"{journal[:8]}-{journal[8:12]}-{journal[12:16]}-{journal[16:20]}-{journal[20:]}",
            int(sequence, 16), int(accepted), int(at, 16),
        )  # fmt: skip
        if self._clock.now_ns() // 1_000_000_000 - receipt.received_s > self._days * SECONDS_A_DAY:
            raise Refused(
                Refusal.RECEIPT_EXPIRED, f"this receipt is older than {self._days} days, for which fates are kept; "
                "GET /api/metrics/stats tells the sums of its hour",
            )  # fmt: skip
        return receipt

    def _seal(self, organization_id: str, text: bytes) -> str:
        sealer = (self._begun.get(organization_id) or self._begin(organization_id)).copy()
        sealer.update(text)
        seal: str = sealer.hexdigest()
        return seal

    def _begin(self, organization_id: str) -> Any:
        while len(self._begun) >= ORGANIZATIONS_MAX:
            del self._begun[next(iter(self._begun))]
        sealer = self._begun[organization_id] = self._sealer.copy()
        sealer.update(f"{organization_id} ".encode())
        return sealer
