"""A report into files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from totalizer.errors import OperationError
from totalizer.ops.report.gather import Figures
from totalizer.ops.report.page import page
from totalizer.ops.report.paper import pdf_of, png_of

FORMS: dict[str, Callable[[Figures], bytes]] = {"html": page, "pdf": pdf_of, "png": png_of}


def write(figures: Figures, form: str, path: Path) -> None:
    """Write a report; what is there is replaced whole or not at all.

    Args:
        figures: of the report.
        form: one of FORMS.
        path: of the file.

    Raises:
        OperationError: the file cannot be written.
    """
    content = FORMS[form](figures)
    # What is there and no file, as a pipe, is written to as it is.
    draft = path if path.exists() and not path.is_file() else path.with_name(f".{path.name}.new")
    try:
        draft.write_bytes(content)
        if draft != path:
            draft.replace(path)
    except OSError as error:
        if draft != path:
            with suppress(OSError):
                draft.unlink()
        raise OperationError(f"--{form} {path}: cannot be written: {error.strerror or error}") from None
