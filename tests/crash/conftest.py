"""How many faults to try, and from which seed.

`script/test crash` tries a choice of them; `--long` every one of each sweep, and `--faults N` that many random ones of
all kinds together (`chances.py` has the shares), besides those of the sweeps. A failure names its seed:
`CRASH_SEED=… script/test crash -k …` has the same chances again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash.chances import Chances
from crash.pipeline import Pipeline
from support import Cluster, Database
from totalizer.catalog import Catalog
from totalizer.ops.embedded import EmbeddedPostgres

SECRET = "a secret for tests"
SEED = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
#: Random faults of all kinds together: in the normal run, and with `--long`.
FAULTS, FAULTS_LONG = 200, 12_000
#: In the normal run, one in so many of the moments of a slow sweep.
STRIDE = 16


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("crash")
    group.addoption("--long", action="store_true", help="try every moment of each sweep, and thousands of faults")
    group.addoption("--faults", type=int, default=None, metavar="N", help="random faults, of all kinds together")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A long run takes as long as it takes."""
    if config.getoption("--long", default=False) or config.getoption("--faults", default=None):
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def chances(request: pytest.FixtureRequest) -> Chances:
    """The seed, printed, so that a failure shows it."""
    print(f"CRASH_SEED={SEED}")
    long = bool(request.config.getoption("--long", default=False))
    faults = request.config.getoption("--faults", default=None)
    return Chances(SEED, faults if faults is not None else FAULTS_LONG if long else FAULTS, 1 if long else STRIDE)


@pytest.fixture
def pipelines(database: Database, tmp_path: Path, catalog: Catalog) -> Iterator[Callable[[], Pipeline]]:
    """Makes pipelines into one database, each with an organisation and a spool of its own."""
    made: list[Pipeline] = []

    def make() -> Pipeline:
        made.append(Pipeline(database, tmp_path / f"pipeline-{len(made)}", catalog))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def pipeline(pipelines: Callable[[], Pipeline]) -> Pipeline:
    """A single one."""
    return pipelines()


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that a test may kill."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("breakable"), SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def breakable_cluster(breakable: EmbeddedPostgres) -> Cluster:
    """Databases on it."""
    return Cluster(breakable)
