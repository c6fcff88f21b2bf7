"""A git repository's history: one event a commit."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from totalizer.errors import OperationError
from totalizer.ops.importers.environment import environment
from totalizer.ops.importers.git_log import FORMAT, Commit, CommitSplitter
from totalizer.ops.importers.limits import text_limits
from totalizer.ops.importers.reading import Lines, chunks_of
from totalizer.ops.importers.source import Broken, Event, Line, Progress

EVENT_TYPE = "commits"
#: The `source` of commits: a commit's hash is its identity in every clone, fork, mirror and shallow copy.
SOURCE = "git"
#: Seconds since 1970 of the first committer date that is believed, 1900-01-01, and of the first that RFC 3339 cannot
#: write, 10000-01-01.
SECONDS_START, SECONDS_END = -2_208_988_800, 253_402_300_800

#: What would redirect git to another repository, or change a history as it is read.
_UNSET = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
#: Own settings a user may have made do not change what is counted, and none of the repository's programs is run.
_LOG = (
    "-c", "diff.renames=true", "-c", "diff.algorithm=myers", "-c", "diff.ignoreSubmodules=none", "--no-pager",
    "log", "--reverse", "-z", "--numstat", "-M", "--diff-merges=off", "--no-ext-diff", "--no-textconv",
    "--no-color", "--no-show-signature", "--no-notes", "--encoding=UTF-8", f"--format={FORMAT}",
)  # fmt: skip


class GitSource:
    """The commits of a repository, oldest first. Contract: `source.Source`.

    A merge is one event with `is_merge` and no lines, since the merged commits bring theirs. A commit counts when it
    was committed, by the committer's clock; it belongs to its author. In a shallow clone the commits at its edge are
    left out: what they changed is not known there, and a later import of the whole history brings them.

    Args:
        path: a work tree, any folder in one, or a bare repository.
        repository: name to count it under; by default that of its `origin`, else of its folder.
        branch: any name of a commit; default `HEAD`.
        everything: all branches, tags and remote branches instead.
        source: identity other than `git`.

    Raises:
        OperationError: git is not there, or `path` is no repository, or `branch` is not in it.
    """

    kind = "git"
    noun = "commit"
    resumable = True

    def __init__(
        self,
        path: str,
        repository: str | None = None,
        branch: str | None = None,
        everything: bool = False,
        source: str | None = None,
    ) -> None:
        self._git = Git(path)
        self.repository = repository or self._git.repository_name()
        self.name = SOURCE if source is None else source
        self.scope: tuple[str, ...] = (
            str(Path(path).resolve()),
            self.repository,
            "--all" if everything else branch or "HEAD",
        )
        self.notes: list[str] = []
        self._limits = text_limits(EVENT_TYPE)
        self._revisions = self._git.revisions(branch, everything)
        self._edge = self._git.shallow_edge()
        self._total = self._git.count(self._revisions)
        self._done = 0

    def lines(self) -> Lines:
        self._done = 0
        if not self._revisions:
            return
        left_out = 0
        for line in self._git.log(self._revisions):
            if line is None:
                yield None
                continue
            self._done += 1
            if Commit.of(line.raw).hash in self._edge:
                left_out += 1
            else:
                yield line
        if left_out:
            self.notes = [
                f"{left_out} commit(s) at the edge of this shallow clone were left out: what they changed "
                "is not known here. `git fetch --unshallow` brings the whole history."
            ]

    def progress(self) -> Progress:
        return Progress(self._done, self._total, "commits")

    def read(self, line: Line) -> Event | Broken:
        commit = Commit.of(line.raw)
        try:
            committed_at = _rfc3339(commit.committed)
        except ValueError as error:
            return Broken(f"commit {commit.hash}: {error}")
        fields: dict[str, Any] = {
            "committed_at": committed_at, "repository": self.repository, "commit_hash": commit.hash,
            "author": commit.author, "author_email": commit.email, "is_merge": commit.is_merge,
            "files_changed": commit.files, "lines_added": commit.added, "lines_removed": commit.removed,
        }  # fmt: skip
        if commit.subject:
            fields["subject"] = commit.subject
        event = self._limits.cut(fields)
        event["id"] = commit.hash
        if self.name:
            event["source"] = self.name
        return Event(EVENT_TYPE, event)


def _rfc3339(seconds: str) -> str:
    """Seconds since 1970 as RFC 3339 in UTC.

    Raises:
        ValueError: there is no such time, or it cannot be meant.
    """
    if not re.fullmatch(r"-?[0-9]{1,12}", seconds) or int(seconds) >= SECONDS_END:
        raise ValueError(f"its committer date {seconds[:40]!r} is no usable time")
    if int(seconds) < SECONDS_START:
        raise ValueError(f"its committer date is before 1900 ({seconds} s since 1970)")
    return f"{datetime(1970, 1, 1) + timedelta(seconds=int(seconds)):%Y-%m-%dT%H:%M:%SZ}"


class Git:
    """The git command on one repository.

    Args:
        path: a work tree, any folder in one, or a bare repository.

    Raises:
        OperationError: git is not there, or `path` is no repository.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._environment = {name: value for name, value in environment().items() if name not in _UNSET}
        self._environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
        self._folder = Path(os.fsdecode(self.ask("rev-parse", "--absolute-git-dir").rstrip(b"\n")))

    def ask(self, *arguments: str) -> bytes:
        """What a git command prints.

        Raises:
            OperationError: it failed; the message holds git's own.
        """
        answer = self._run(*arguments)
        if answer.returncode != 0:
            raise OperationError(f"git cannot read {self._path}: {_said(answer.stderr)}")
        return answer.stdout

    def repository_name(self) -> str:
        """Last part of the address of `origin`, else the folder's name; at least one character."""
        origin = self._run("config", "--get", "remote.origin.url").stdout.decode("utf-8", "replace").strip()
        folder = self._folder.parent if self._folder.name == ".git" else self._folder
        for candidate in (re.split(r"[/:\\]", origin.rstrip("/\\"))[-1], folder.name):
            if name := candidate.removesuffix(".git"):
                return name[:255]
        return "repository"

    def revisions(self, branch: str | None, everything: bool) -> list[str]:
        """What to give `git log`; nothing if there is no commit yet.

        Raises:
            OperationError: there is no such branch.
        """
        head = [name for name in ("HEAD",) if self._exists(name)]
        if everything:
            refs = self.ask("for-each-ref", "--count=1", "refs/heads", "refs/tags", "refs/remotes")
            return ["--branches", "--tags", "--remotes", *head] if refs or head else []
        if branch is None:
            return head
        if branch.startswith("-") or not self._exists(branch):
            raise OperationError(f"{self._path} has no branch or commit called {branch!r}")
        return [branch]

    def shallow_edge(self) -> frozenset[str]:
        """Hashes of the commits whose parents a shallow clone does not have."""
        if self.ask("rev-parse", "--is-shallow-repository").strip() != b"true":
            return frozenset()
        common = Path(self._path, os.fsdecode(self.ask("rev-parse", "--git-path", "shallow").rstrip(b"\n")))
        return frozenset(common.read_text("ascii").split())

    def count(self, revisions: Sequence[str]) -> int:
        """Number of commits that `revisions` reach."""
        return int(self.ask("rev-list", "--count", *revisions, "--")) if revisions else 0

    def log(self, revisions: Sequence[str]) -> Lines:
        """The commits, oldest first, each as one line for `Commit.of`; None while git is still looking.

        Raises:
            OperationError: git failed on the way.
        """
        command = ["git", "-C", self._path, *_LOG, *revisions, "--"]
        with tempfile.TemporaryFile() as errors:
            # An own session: Ctrl-C is for this process, which ends git itself when it has saved its place.
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                env=self._environment, start_new_session=True,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                splitter = CommitSplitter()
                try:
                    for chunk in chunks_of(process.stdout.fileno()):
                        if chunk is None:
                            yield None
                        else:
                            yield from splitter.feed(chunk)
                    status = process.wait()
                finally:
                    process.kill()  # does nothing to a process that has ended
            if status != 0:
                errors.seek(0)
                raise OperationError(f"git log ended with status {status}: {_said(errors.read())}")
            yield from splitter.end()

    def _exists(self, name: str) -> bool:
        return self._run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").returncode == 0

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["git", "-C", self._path, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                check=False, env=self._environment,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise OperationError("git is not on PATH; install it to import a history") from error


def _said(stderr: bytes) -> str:
    """The last sentences of git's own message."""
    return stderr.decode("utf-8", "replace").strip()[-500:] or "no reason given"
