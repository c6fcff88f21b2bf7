"""Where the service runs and listens, and how it logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic_settings import BaseSettings

from totalizer.settings.named import named


class ServiceSettings(BaseSettings):
    """Where the service runs and listens, and how it logs."""

    home: Annotated[Path, named("TOTALIZER_HOME", "Data folder: journal, embedded servers, keys, logs.")] = Path(
        ".totalizer"
    )
    host: Annotated[str, named("HOST", "Address the API listens on.")] = "127.0.0.1"
    port: Annotated[int, named("PORT", "TCP port of the API.", ge=1, le=65535)] = 3000
    workers: Annotated[int, named("TOTALIZER_WORKERS", "API processes, each with its own journal.", ge=1, le=64)] = 1
    uds: Annotated[Path | None, named("TOTALIZER_UDS", "Unix socket the API listens on instead of HOST and PORT.")] = (
        None
    )
    tls_cert: Annotated[
        Path | None, named("TOTALIZER_TLS_CERT", "PEM file of the certificate and what it is signed with; for HTTPS.")
    ] = None
    tls_key: Annotated[Path | None, named("TOTALIZER_TLS_KEY", "PEM file of the certificate's key.")] = None
    connections_max: Annotated[
        int,
        named(
            "TOTALIZER_CONNECTIONS_MAX",
            "Connections one API process holds; further ones wait to be accepted.",
            ge=1,
            le=100_000,
        ),
    ] = 1024
    header_timeout_ms: Annotated[
        int,
        named(
            "TOTALIZER_HEADER_TIMEOUT_MS",
            "Longest time for a request's header, and between two requests of a connection.",
            ge=100,
            le=3_600_000,
        ),
    ] = 30_000
    body_timeout_ms: Annotated[
        int,
        named(
            "TOTALIZER_BODY_TIMEOUT_MS",
            "Longest time for a request's body; of a stream, for its next piece.",
            ge=100,
            le=3_600_000,
        ),
    ] = 30_000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        named("LOG_LEVEL", "Least severe level that is logged."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        named("LOG_FORMAT", "How lines are logged: `auto` is `console` at a terminal, else `json`."),
    ] = "auto"
    log_bytes: Annotated[
        int,
        named("TOTALIZER_LOG_BYTES", "Size above which `totalizer up` sets a log aside.", ge=1 << 16, le=1 << 40),
    ] = 10 << 20
    log_files: Annotated[
        int, named("TOTALIZER_LOG_FILES", "Logs set aside that are kept of each part.", ge=0, le=1000)
    ] = 4
    otlp_endpoint: Annotated[
        str | None,
        named("OTEL_EXPORTER_OTLP_ENDPOINT", "Where traces go, by OTLP over HTTP; `/v1/traces` is added to it."),
    ] = None
    otlp_traces_endpoint: Annotated[
        str | None,
        named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "The same as a whole address; stronger than the other."),
    ] = None
    otel_disabled: Annotated[bool, named("OTEL_SDK_DISABLED", "True to trace nothing, whatever endpoint is set.")] = (
        False
    )
    metrics: Annotated[bool, named("TOTALIZER_METRICS", "False to serve no `/metrics`.")] = True
    metrics_token: Annotated[
        str | None,
        named("TOTALIZER_METRICS_TOKEN", "What `/metrics` wants as Bearer token; anybody gets it if not set."),
    ] = None
    aggregation_path: Annotated[
        Path | None,
        named(
            "TOTALIZER_AGGREGATION_PATH",
            "Data path of the batching library whose health the API tells; `aggregated` in the data folder if not set.",
        ),
    ] = None

    @property
    def traces_endpoint(self) -> str | None:
        """Where traces go; None if nothing is traced."""
        if self.otel_disabled:
            return None
        if self.otlp_traces_endpoint is None and self.otlp_endpoint is not None:
            return f"{self.otlp_endpoint.rstrip('/')}/v1/traces"
        return self.otlp_traces_endpoint
