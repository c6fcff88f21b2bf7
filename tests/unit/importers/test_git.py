"""Git histories: any name, any date, any kind of clone."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import psutil
import pytest

from totalizer.errors import OperationError
from totalizer.ops.importers.git import GitSource
from totalizer.ops.importers.git_log import CommitSplitter
from totalizer.ops.importers.source import Broken

ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org", "GIT_AUTHOR_DATE": "1600000000 +0200",
    "GIT_COMMITTER_NAME": "Bob", "GIT_COMMITTER_EMAIL": "bob@example.org", "GIT_COMMITTER_DATE": "1700000000 +0200",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


class Repository:
    def __init__(self, path: Any) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: Any, text: Any = None, **environment: Any) -> Any:
        result = subprocess.run(
            ["git", "-C", self.path, *arguments], input=text, capture_output=True, check=True,
            env=os.environ | ENVIRONMENT | environment,
        )  # fmt: skip
        return result.stdout.decode().strip()

    def commit(self, subject: Any = "work", files: Any = None, **environment: Any) -> Any:
        for name, content in (files or {}).items():
            file = os.fsencode(self.path) + b"/" + name
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(file, "wb") as stream:
                stream.write(content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", subject, **environment)
        return self.git("rev-parse", "HEAD")

    def raw_commit(self, text: bytes) -> Any:
        """A commit object written as it is, made the head."""
        tree = self.git("write-tree")
        name = self.git(
            "hash-object", "-t", "commit", "-w", "--stdin", "--literally", text=text.replace(b"TREE", tree.encode())
        )
        self.git("update-ref", "refs/heads/main", name)
        return name


@pytest.fixture
def repository(tmp_path: Path) -> Any:
    return Repository(tmp_path / "project")


def events(source: Any) -> Any:
    results = [source.read(line) for line in source.lines() if line is not None]
    return [result if isinstance(result, Broken) else result.fields for result in results]


def test_a_commit_says_what_it_changed(repository: Repository) -> None:
    repository.commit("first", {b"a": b"1\n2\n3\n", b"image": b"\0\1\2"})
    second = repository.commit("second: é", {b"a": b"1\nX\n"})

    assert events(GitSource(str(repository.path)))[1] == {
        "id": second, "source": "git", "committed_at": "2023-11-14T22:13:20Z", "repository": "project",
        "commit_hash": second, "author": "Ada", "author_email": "ada@example.org", "is_merge": False,
        "files_changed": 1, "lines_added": 1, "lines_removed": 2, "subject": "second: é",
    }  # fmt: skip
    first = events(GitSource(str(repository.path)))[0]
    assert (first["files_changed"], first["lines_added"]) == (2, 3)


def test_names_cannot_break_the_reading(repository: Repository) -> None:
    names = [b"tab\there", b"new\nline", b"0\t0\tfake", b"\xff\xfe", "ü ".encode(), b"dir => other/{a => b}"]
    repository.commit("names", dict.fromkeys(names, b"x\n"))
    repository.git("mv", "new\nline", "other\nline")
    repository.commit("renamed")
    repository.commit("")
    repository.commit("after")

    found = events(GitSource(str(repository.path)))

    changes = [(event["files_changed"], event["lines_added"], event["lines_removed"]) for event in found]
    assert changes == [(6, 6, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0)]
    assert [event.get("subject") for event in found] == ["names", "renamed", None, "after"]


def test_a_merge_counts_as_a_commit_without_lines(repository: Repository) -> None:
    repository.commit("base", {b"a": b"1\n"})
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("side", {b"b": b"1\n2\n"})
    repository.git("checkout", "-q", "main")
    repository.commit("main", {b"c": b"1\n"})
    repository.git("merge", "-q", "--no-edit", "side")
    repository.git("config", "log.diffMerges", "first-parent")

    found = events(GitSource(str(repository.path)))

    assert [event["is_merge"] for event in found] == [False, False, False, True]
    assert sum(event["lines_added"] for event in found) == 4
    assert found[-1]["files_changed"] == 0


def test_settings_of_the_user_change_nothing(repository: Repository) -> None:
    repository.commit("first", {b"a": b"1\n2\n3\n4\n"})
    repository.git("mv", "a", "b")
    repository.commit("second")
    plain = events(GitSource(str(repository.path)))
    settings = {
        "diff.renames": "false", "diff.noprefix": "true", "log.showSignature": "true", "color.ui": "always",
        "log.date": "relative", "format.pretty": "oneline", "diff.external": "false",
        "i18n.logOutputEncoding": "latin1", "log.follow": "true", "diff.statGraphWidth": "1",
    }  # fmt: skip
    for name, value in settings.items():
        repository.git("config", name, value)

    assert events(GitSource(str(repository.path))) == plain


@pytest.mark.parametrize(
    ("date", "result"),
    [
        ("0 +0000", "1970-01-01T00:00:00Z"),
        ("4102444800 -0330", "2100-01-01T00:00:00Z"),
        ("1700000000 +9999", "2023-11-14T22:13:20Z"),
        ("253402300799 +0000", "9999-12-31T23:59:59Z"),
        ("253402300800 +0000", None),
        ("99999999999999999999 +0000", None),
        ("-5000000000 +0000", None),
        ("junk", None),
    ],
)
def test_dates_are_taken_or_quarantined_with_the_commit_named(repository: Repository, date: Any, result: Any) -> None:
    repository.commit("good")
    name = repository.raw_commit(f"tree TREE\nauthor A <a@x> {date}\ncommitter C <c@x> {date}\n\nodd\n".encode())

    [found] = events(GitSource(str(repository.path)))

    if result is None:
        assert isinstance(found, Broken)
        assert name in found.reason
    else:
        assert found["committed_at"] == result


def test_a_commit_without_readable_author_is_counted(repository: Repository) -> None:
    repository.raw_commit(b"tree TREE\nauthor \ncommitter C <c@x> 1700000000 +0000\n\nodd\n")

    [found] = events(GitSource(str(repository.path)))

    assert (found["author"], found["author_email"]) == ("unknown", "")


def test_texts_are_decoded_and_cut(repository: Repository) -> None:
    repository.commit("s" * 2000, GIT_AUTHOR_NAME="n" * 500)
    repository.git("config", "i18n.commitEncoding", "latin1")
    repository.raw_commit(
        b"tree TREE\nauthor Jos\xe9 <j@x> 1 +0000\ncommitter C <c@x> 1 +0000\nencoding latin1\n\ncaf\xe9\n"
    )
    latin = events(GitSource(str(repository.path)))
    repository.raw_commit(b"tree TREE\nauthor Jos\xe9 <j@x> 1 +0000\ncommitter C <c@x> 1 +0000\n\ncaf\xe9\n")
    undeclared = events(GitSource(str(repository.path)))

    assert [(event["author"], event["subject"]) for event in latin + undeclared] == [
        ("José", "café"), ("Jos\N{REPLACEMENT CHARACTER}", "caf\N{REPLACEMENT CHARACTER}"),
    ]  # fmt: skip


def test_long_texts_are_cut_to_what_the_catalog_allows(repository: Repository) -> None:
    repository.commit("s" * 100_000, GIT_AUTHOR_NAME="n" * 500)

    [found] = events(GitSource(str(repository.path)))

    assert (len(found["author"]), len(found["subject"])) == (255, 500)


def test_two_clones_are_one_source(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {b"a": b"1\n"})
    repository.commit("two", {b"a": b"2\n"})
    subprocess.run(["git", "clone", "-q", "--bare", repository.path, tmp_path / "bare.git"], check=True)
    subprocess.run(["git", "clone", "-q", tmp_path / "bare.git", tmp_path / "again"], check=True)
    (tmp_path / "again" / "deep").mkdir()

    original = GitSource(str(repository.path), repository="r")
    for path in (tmp_path / "bare.git", tmp_path / "again", tmp_path / "again" / "deep"):
        assert events(GitSource(str(path), repository="r")) == events(original)


def test_a_shallow_clone_gives_what_it_knows_and_says_what_it_leaves_out(
    repository: Repository, tmp_path: Path
) -> None:
    for number in range(5):
        repository.commit(f"c{number}", {b"a%d" % number: b"1\n"})
    subprocess.run(["git", "clone", "-q", "--depth=3", f"file://{repository.path}", tmp_path / "s"], check=True)

    source = GitSource(str(tmp_path / "s"), repository="project")

    assert events(source) == events(GitSource(str(repository.path)))[3:]
    assert "1 commit(s) at the edge" in source.notes[0]


def test_the_repository_is_called_after_its_origin_or_its_folder(repository: Repository, tmp_path: Path) -> None:
    assert GitSource(str(repository.path)).repository == "project"
    for address in ("https://u:p@example.org/team/thing.git", "git@example.org:thing.git", "/srv/git/thing/"):
        repository.git("config", "remote.origin.url", address)
        assert GitSource(str(repository.path)).repository == "thing"
    assert GitSource(str(repository.path), repository="own").repository == "own"


def test_branches(repository: Repository) -> None:
    repository.commit("main")
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("side")
    repository.git("checkout", "-q", "--orphan", "pages")
    repository.commit("pages")
    repository.git("stash", "list")
    repository.git("checkout", "-q", "main")

    def subjects(**options: Any) -> Any:
        return sorted(event["subject"] for event in events(GitSource(str(repository.path), **options)))

    assert subjects() == ["main"]
    assert subjects(branch="side") == ["main", "side"]
    assert subjects(everything=True) == ["main", "pages", "side"]
    repository.git("checkout", "-q", "--detach", "side")
    assert subjects() == ["main", "side"]
    for name in ("nowhere", "--all", "-x"):
        with pytest.raises(OperationError, match="no branch or commit"):
            GitSource(str(repository.path), branch=name)


def test_an_empty_repository_has_no_commits(repository: Repository) -> None:
    for everything in (False, True):
        source = GitSource(str(repository.path), everything=everything)
        assert events(source) == []
        assert source.progress().total == 0


def test_what_is_no_repository_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="not a git repository"):
        GitSource(str(tmp_path))


def test_git_itself_missing_is_told_so(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(OperationError, match="not on PATH"):
        GitSource(str(repository.path))


def test_variables_of_git_do_not_lead_elsewhere(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit("here")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))

    assert [event["subject"] for event in events(GitSource(str(repository.path)))] == ["here"]


def test_a_damaged_repository_is_an_error_not_an_end(repository: Repository) -> None:
    repository.commit("one", {b"a": b"1\n"})
    repository.commit("two", {b"a": b"2\n"})
    source = GitSource(str(repository.path))
    blob = repository.git("rev-parse", "HEAD:a")
    (repository.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()

    with pytest.raises(OperationError, match="git log ended with status"):
        events(source)


def test_the_progress_counts_commits(repository: Repository) -> None:
    for number in range(3):
        repository.commit(f"c{number}")
    source = GitSource(str(repository.path))
    lines = source.lines()
    next(line for line in lines if line is not None)

    assert source.progress().total == 3
    lines.close()


def test_leaving_early_leaves_no_process(tmp_path: Path, repository: Repository) -> None:
    for number in range(3):
        repository.commit(f"c{number}")
    source = GitSource(str(repository.path))
    lines = source.lines()
    next(line for line in lines if line is not None)
    lines.close()

    assert [child for child in psutil.Process().children() if child.name() == "git"] == []


def test_memory_does_not_grow_with_the_history() -> None:
    commit = b"\0".join(
        [
            b"%040x",
            b"p" * 40,
            b"Ada",
            b"a@x",
            b"1700000000",
            b"subject",
            b"\n1\t2\tname",
            b"3\t4\t",
            b"old",
            b"new",
            b"",
        ]
    )
    splitter = CommitSplitter()
    tracemalloc.start()
    try:
        count = 0
        for block in range(200):
            chunk = b"".join(commit % (block * 500 + number) for number in range(500))
            count += sum(1 for _ in splitter.feed(chunk))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 200 * 500 - 1
    assert peak < 3_000_000
