"""Which data folder a command is about, how batches are configured there, and where they go."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import msgspec
import typer

from totalizer.edge.daemon.options import DaemonOptions
from totalizer.edge.folder import Folders
from totalizer.edge.options import Options, from_config
from totalizer.edge.sinks.file import FileSink
from totalizer.edge.sinks.sink import Sink
from totalizer.errors import ConfigurationError
from totalizer.ops.importers.environment import environment, home_folder
from totalizer.ops.importers.target import find_target

DataPathOption = Annotated[
    Optional[Path],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Option(
        "--data-path",
        help="Folder of the batch files (TOTALIZER_AGGREGATION_PATH, default aggregated in the data folder).",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Option("--config", help="Configuration file of the batching library, JSON or TOML.", show_default=False),
]
SinkUrlOption = Annotated[
    Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Option(
        "--sink-url",
        help="Server to deliver to (TOTALIZER_URL), key in TOTALIZER_API_KEY; without, batch files are written.",
        show_default=False,
    ),
]

#: Options that the environment may give, since secrets belong there, by the names of their variables.
_ALERT_VARIABLES = {"alert_urls": "TOTALIZER_ALERT_URLS", "alert_urls_critical": "TOTALIZER_ALERT_URLS_CRITICAL"}


@dataclass(frozen=True)
class Place:
    """A data folder, with its options.

    Attributes:
        aggregator: options of aggregators.
        daemon: options of the recovery daemon.
        folders: where everything is.
        url: server to deliver to; None for batch files.
    """

    aggregator: Options
    daemon: DaemonOptions
    folders: Folders
    url: str | None

    def sink(self) -> Sink:
        """A target of batches; the caller closes it. ConfigurationError if there is no usable key for the server."""
        if self.url is None:
            return FileSink(self.folders.data, atomic=self.aggregator.atomic_operations)
        from totalizer.edge.sinks.http import HttpSink

        target = find_target(self.url, None, home_folder(None, environment()), environment())
        return HttpSink(target.url, target.key)

    def require(self) -> None:
        """Make sure that there is something to look at. ConfigurationError if the data folder is missing."""
        if not self.folders.data.is_dir():
            raise ConfigurationError(
                f"{self.folders.data} does not exist: nothing was batched there. Name the folder with --data-path"
            )


def find_place(data_path: Path | None, config: Path | None = None, sink_url: str | None = None) -> Place:
    """The place that options, a configuration file and the environment name, the first of these that does.

    Args:
        data_path: value of `--data-path`.
        config: value of `--config`.
        sink_url: value of `--sink-url`.

    Raises:
        ConfigurationError: the file cannot be read, or a value cannot be used.
    """
    variables = environment()
    given = read_config(config) if config is not None else {}
    aggregator = from_config(given)
    path = data_path or aggregator.get("data_path") or _default_path(variables)
    daemon = DaemonOptions.make({**_alert_urls(variables), **given}, data_path=path)  # those of a file are stronger
    return Place(
        Options.of({**aggregator, "data_path": path}), daemon,
        Folders(path, daemon.recovery_path, daemon.health_path), sink_url or variables.get("TOTALIZER_URL") or None,
    )  # fmt: skip


def read_config(path: Path) -> Mapping[str, Any]:
    """The mapping in a configuration file, TOML if it is called so, else JSON. ConfigurationError if it is none."""
    try:
        data = path.read_bytes()
        found = tomllib.loads(data.decode()) if path.suffix == ".toml" else msgspec.json.decode(data)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} must hold an object with the options as members")
    return found


def _default_path(variables: Mapping[str, str]) -> Path:
    named = variables.get("TOTALIZER_AGGREGATION_PATH")
    return Path(named) if named else home_folder(None, variables) / "aggregated"


def _alert_urls(variables: Mapping[str, str]) -> dict[str, list[str]]:
    return {option: urls for option, name in _ALERT_VARIABLES.items() if (urls := variables.get(name, "").split())}
