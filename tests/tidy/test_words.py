"""What must not stand anywhere in the project: other machines' paths, registries, names that are not ours."""

from __future__ import annotations

import hashlib
import re

import pytest

#: SHA-256 of words in lower case, so that they do not stand here either.
FOREIGN = {
    "bae2f40bd0925aa532698e7ec0e9e613b40c22f5ed40e02989fb18157e992413",
    "8156f73274e5414a7fe2ec032f295a3ba4cf0f54b13349f9c0b55173505bd1ff",
    "ba7193025e54486466b298dbe0ca7285fd0d8c2465bfca3a546fd1ae82ee05dd",
}
WORD = re.compile(r"[A-Za-z]+")
PATTERNS = {
    "a path of somebody's machine": r"(?<![\w.~$}])/(home|Users|root|work)/[A-Za-z0-9_.-]+",
    "a registry": r"\b(pythonhosted|pypi|npmjs|crates|proxy\.golang|ghcr|docker)\.(org|io|com)\b",
    "an index of packages": r"--(extra-)?index-url|--find-links",
}


def lines_with(pattern: str, texts: dict[str, str]) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if found.search(line) and not path.startswith("tests/tidy/")
    ]


@pytest.mark.parametrize("what", PATTERNS)
def test_nowhere(texts: dict[str, str], what: str) -> None:
    assert lines_with(PATTERNS[what], texts) == []


def test_no_name_of_another_product(texts: dict[str, str]) -> None:
    places: dict[str, set[str]] = {}
    for path, text in texts.items():
        for word in set(WORD.findall(text)):
            places.setdefault(word.lower(), set()).add(path)
    assert {path for word, paths in places.items() if is_foreign(word) for path in paths} == set()


def is_foreign(word: str) -> bool:
    return hashlib.sha256(word.lower().encode()).hexdigest() in FOREIGN


def test_the_patterns_find_what_they_are_for() -> None:
    examples = {"a": "see /home/jane/x", "b": "https://pypi.org/simple", "c": "pip --index-url x", "d": "fine ~/work/x"}
    found = {line.split(":")[0] for pattern in PATTERNS.values() for line in lines_with(pattern, examples)}
    assert found == {"a", "b", "c"}
