"""Every error this package raises.

TotalizerError
├── ConfigurationError        a setting, option or catalog file is wrong; fix it and start again
│   └── CatalogError          names the file, the key and the reason
├── Refused                   a request cannot be taken; carries a Refusal and an HTTP status
├── JournalError              the journal cannot do what was asked
│   ├── JournalFull           its quota is reached: try again later, nothing was written
│   ├── JournalBusy           another process owns the folder
│   └── JournalFailed         the disk refused; nothing was acknowledged
├── EdgeError                 the batching library cannot do what was asked
│   ├── ValidationError       an entry cannot be taken; names the field and the value
│   ├── FlushError            a batch could not be delivered now; it is kept
│   ├── AggregatorClosed      add() after shutdown()
│   ├── RateLimited           more entries a second than the aggregator was told to take
│   ├── DaemonError           the recovery daemon cannot start, or is running already
│   ├── BatchFileDamaged      a batch file cannot be read
│   ├── BatchVersionUnknown   a batch file of a later version
│   ├── SinkUnavailable       the target cannot take a batch, or a part of it, now: try again later
│   └── SinkRefused           the target refuses a batch for good
├── StoreUnavailable          PostgreSQL or Redis cannot be reached; try again
├── JobStopped                a run of a job was told to stop: it took too long, or its runner ends
├── CatalogChangeRefused      applying the catalog would destroy data
└── OperationError            a command cannot go on; the message says what to do
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class TotalizerError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__ or type(self).__name__)


class ConfigurationError(TotalizerError):
    """A setting or option has a value that cannot be used."""


class CatalogError(ConfigurationError):
    """A catalog file cannot be used.

    Args:
        file: the catalog file's name.
        key: dotted path of the offending key, for example `event_type.commits.fields.author`.
        reason: what is wrong, with the value, and what would be right.
    """

    def __init__(self, file: str, key: str, reason: str) -> None:
        super().__init__(f"{file}: {key}: {reason}")
        self.file, self.key, self.reason = file, key, reason


class CatalogChangeRefused(TotalizerError):
    """The catalog asks for a change that would destroy stored data."""


class JournalError(TotalizerError):
    """The journal cannot do what was asked."""


class JournalFull(JournalError):
    """The journal has reached its quota; nothing was written. Try again when the loader has drained it."""


class JournalBusy(JournalError):
    """Another process owns this journal folder."""


class JournalFailed(JournalError):
    """The disk refused a write or a sync; what was being written is not acknowledged."""


class EdgeError(TotalizerError):
    """The batching library cannot do what was asked.

    Attributes:
        code: stands for the class in logs and answers.
    """

    code = "EDGE_ERROR"


class ValidationError(EdgeError):
    """An entry cannot be taken.

    Args:
        field: dotted path of the offending member, such as `metadata.duration`; empty for the entry as a whole.
        reason: what is wrong, with the value, and what would be right.
    """

    code = "VALIDATION_ERROR"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field, self.reason = field, reason

    @property
    def name(self) -> str:
        """Always `ValidationError`."""
        return type(self).__name__


class FlushError(EdgeError):
    """A batch could not be delivered. Nothing is lost: the entries are kept for the recovery daemon.

    Args:
        message: what went wrong, and where the entries are.
        batch_size: how many entries were not delivered.
        retryable: True if trying again later may help.
        timestamp: when, milliseconds since 1970 UTC.
    """

    code = "FLUSH_ERROR"

    def __init__(self, message: str, *, batch_size: int, retryable: bool, timestamp: int) -> None:
        super().__init__(message)
        self.batch_size, self.retryable, self.timestamp = batch_size, retryable, timestamp


class AggregatorClosed(EdgeError):
    """The aggregator was shut down; make another one to go on."""

    code = "AGGREGATOR_CLOSED"


class RateLimited(EdgeError):
    """More entries a second than the aggregator was told to take; this one was not taken."""

    code = "RATE_LIMITED"


class DaemonError(EdgeError):
    """The recovery daemon cannot do what was asked."""

    code = "DAEMON_ERROR"


class BatchFileDamaged(EdgeError):
    """A batch file cannot be read; the message names the file and what is wrong with it."""

    code = "BATCH_FILE_DAMAGED"


class BatchVersionUnknown(EdgeError):
    """A batch file has a version this program does not know; the message says what to do."""

    code = "BATCH_VERSION_UNKNOWN"


class SinkUnavailable(EdgeError):
    """The target cannot take a batch now. Trying again later may help.

    Args:
        message: what went wrong.
        retry_after_s: seconds the target asked to be left alone for; None if it did not say.
        undelivered: indexes within the batch of the entries it has not taken; None for all of them, or if unknown.
            Entries at other indexes are delivered, or refused for good if they are in `refused`.
        refused: entries the same answer refused for good.
    """

    code = "SINK_UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        undelivered: tuple[int, ...] | None = None,
        refused: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(message)
        self.retry_after_s, self.undelivered, self.refused = retry_after_s, undelivered, refused


class SinkRefused(EdgeError):
    """The target refuses the whole batch for good; sending the same again cannot help."""

    code = "SINK_REFUSED"


class StoreUnavailable(TotalizerError):
    """The database cannot be reached. Try again."""


class JobStopped(TotalizerError):
    """The run was told to stop."""


class OperationError(TotalizerError):
    """The command cannot go on."""


class Refusal(Enum):
    """Why a request or one of its events was not accepted: the closed set told to senders."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    RECEIPT_EXPIRED = "receipt_expired"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BODY_TIMEOUT = "body_timeout"
    BODY_TOO_LARGE = "body_too_large"
    BATCH_TOO_LARGE = "batch_too_large"
    BATCH_EMPTY = "batch_empty"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    INVALID_EVENT = "invalid_event"
    INVALID_TIME = "invalid_time"
    INVALID_QUERY = "invalid_query"
    QUERY_TOO_LARGE = "query_too_large"
    QUERY_TIMEOUT = "query_timeout"
    DATA_CHANGED = "data_changed"
    TOO_MANY_QUERIES = "too_many_queries"
    REQUEST_UNDER_WAY = "request_under_way"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    RATE_LIMITED = "rate_limited"
    JOURNAL_FULL = "journal_full"
    JOURNAL_FAILED = "journal_failed"
    DATABASE_UNAVAILABLE = "database_unavailable"
    IDENTITY_UNAVAILABLE = "identity_unavailable"
    LIVE_UNAVAILABLE = "live_unavailable"
    LIVE_LIMIT = "live_limit"
    INTERNAL = "internal"


#: HTTP status of each refusal when it is the answer to a whole request.
STATUS_OF: dict[Refusal, int] = {
    Refusal.BAD_JSON: 400,
    Refusal.BAD_REQUEST: 400,
    Refusal.UNAUTHENTICATED: 401,
    Refusal.FORBIDDEN: 403,
    Refusal.NOT_FOUND: 404,
    Refusal.RECEIPT_EXPIRED: 410,
    Refusal.METHOD_NOT_ALLOWED: 405,
    Refusal.UNSUPPORTED_MEDIA_TYPE: 415,
    Refusal.BODY_TIMEOUT: 408,
    Refusal.BODY_TOO_LARGE: 413,
    Refusal.BATCH_TOO_LARGE: 422,
    Refusal.BATCH_EMPTY: 422,
    Refusal.UNKNOWN_EVENT_TYPE: 422,
    Refusal.INVALID_EVENT: 422,
    Refusal.INVALID_TIME: 422,
    Refusal.INVALID_QUERY: 422,
    Refusal.QUERY_TOO_LARGE: 422,
    Refusal.QUERY_TIMEOUT: 422,
    Refusal.DATA_CHANGED: 409,
    Refusal.TOO_MANY_QUERIES: 429,
    Refusal.REQUEST_UNDER_WAY: 409,
    Refusal.IDEMPOTENCY_CONFLICT: 422,
    Refusal.RATE_LIMITED: 429,
    Refusal.JOURNAL_FULL: 503,
    Refusal.JOURNAL_FAILED: 503,
    Refusal.DATABASE_UNAVAILABLE: 503,
    Refusal.IDENTITY_UNAVAILABLE: 503,
    Refusal.LIVE_UNAVAILABLE: 503,
    Refusal.LIVE_LIMIT: 429,
    Refusal.INTERNAL: 500,
}


class Refused(TotalizerError):
    """A request that cannot be taken.

    Args:
        refusal: the reason, from the closed set; it fixes the HTTP status.
        detail: what was wrong, with the value, and what to do.
        retry_after_s: seconds to wait before the same request may succeed; only for 429 and 503.
        headers: further header fields of the answer.
        extra: further members of the problem document (RFC 9457), for example the per-item answers.
    """

    def __init__(
        self,
        refusal: Refusal,
        detail: str,
        *,
        retry_after_s: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.refusal, self.detail = refusal, detail
        self.retry_after_s, self.headers, self.extra = retry_after_s, headers, extra

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return STATUS_OF[self.refusal]
