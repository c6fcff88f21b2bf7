"""Receipts: what an answer gives its sender to ask later what became of the events.

A receipt says which record of which journal holds the events, how many there are and when they came. It carries its own
seal, made with a key of the installation over all that and the organisation: nothing is stored for it, and nobody can
make one up or ask with somebody else's. docs/adr/0009-receipts.md
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_hex
from typing import NamedTuple

from totalizer.clock import Clock
from totalizer.errors import Refusal, Refused

SECONDS_A_DAY = 86_400
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
        self._journal, self._clock, self._days = journal_id.replace("-", "").encode(), clock, days

    def make(self, organization_id: str, sequence: int, accepted: int) -> bytes:
        """A receipt.

        Args:
            organization_id: who may ask with it.
            sequence: number of the journal's record.
            accepted: how many events it holds.
        """
        text = b"%b-%x-%d-%x" % (self._journal, sequence, accepted, self._clock.now_ns() // 1_000_000_000)
        return b"%b-%b" % (text, self._seal(organization_id, text))

    def read(self, token: str, organization_id: str) -> Receipt:
        """What a receipt says.

        Raises:
            Refused: it is none of this organisation's, or too old.
        """
        found = _FORM(token)
        text, _, seal = token.rpartition("-")
        if found is None or not hmac.compare_digest(seal.encode(), self._seal(organization_id, text.encode())):
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

    def _seal(self, organization_id: str, text: bytes) -> bytes:
        sealer = self._sealer.copy()
        sealer.update(b"%b %b" % (organization_id.encode(), text))
        return b2a_hex(sealer.digest())
