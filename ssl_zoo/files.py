"""Files that are there whole or not at all, whatever happens while they are written."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def replace_file(file: Path, write: Callable[[BinaryIO], object], keep: Path | None = None) -> None:
    """Let `write` fill a temporary file, put it on the disk, and rename it to `file`.

    What `file` was before becomes `keep`, if given. Raises OSError, which says what to do where the disk is
    full; `file` is then as it was.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        if keep is not None and file.exists():
            os.replace(file, keep)
        os.replace(temporary, file)
        _sync_folder(file.parent)
    except OSError as error:
        raise explained(error, file) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Replace a file's text; raises as `replace_file`."""
    replace_file(file, lambda handle: handle.write(text.encode()))


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder which nobody else writes to."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def explained(error: OSError, file: Path) -> OSError:
    """The error with what to do about it; others than a full disk as they are."""
    if not is_disk_full(error):
        return error
    return OSError(
        error.errno,
        f"no space left to write {file}: make space and run the same command again, it goes on from the last "
        "checkpoint",
    )


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
