"""The kind of a checkpoint file, determined before PyTorch reads it."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

from ..errors import CheckpointError
from ..files import opening

ZIP, LEGACY, SAFETENSORS = "zip", "legacy", "safetensors"

_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number at the start of files of torch.save before 1.6
_CUT = "is cut off or damaged: its zip directory is incomplete; copy or download it again"
_OTHER_ZIP = "is a zip file, but not one that torch.save wrote: it has no data.pkl in one folder"
CONVERT = "load it with the PyTorch that wrote it and save its state dict with torch.save"


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a regular file that is not empty. Raises CheckpointError for anything else."""
    try:
        file = opening.open_regular(Path(path).expanduser())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {opening.why(error)}") from None
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise CheckpointError(f"{path}: is empty (0 bytes): the download or the copy failed")
    return file


def kind_of(file: IO[bytes]) -> str:
    """ZIP, LEGACY or SAFETENSORS. Raises CheckpointError, without a file name, for other and for unsafe files.

    Rejected with every version of PyTorch: TorchScript archives and tar files, because versions before 2.6 read more
    than weights from them; compressed or overlapping entries, which let a small file fill the memory.
    """
    head = _head(file, 512)
    if head[:4] == b"PK\x03\x04":
        _check_zip(file)
        return ZIP
    if head[:1] == b"\x80" and _MAGIC in head[:32]:
        return LEGACY
    reject_programs(file)
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _size(file):
        return SAFETENSORS
    raise CheckpointError(_not_a_checkpoint(head))


def reject_programs(file: IO[bytes]) -> None:
    """Raises CheckpointError for a TorchScript archive and for a tar file."""
    if _head(file, 4) == b"PK\x03\x04":
        if "constants.pkl" in records(file):
            raise CheckpointError(
                "is a TorchScript archive, a program and not only weights, so it is not read. If you trust it, save "
                "the result of torch.jit.load(FILE).state_dict() with torch.save"
            )
    elif _is_tar(file):
        raise CheckpointError(f"is a tar file, as PyTorch wrote before 0.2, and is not read: {CONVERT}")


def _is_tar(file: IO[bytes]) -> bool:
    start = file.tell()
    try:
        with tarfile.open(fileobj=file, mode="r:"):
            return True
    except (tarfile.TarError, EOFError, ValueError):
        return False
    finally:
        file.seek(start)


def records(file: IO[bytes]) -> list[str]:
    """Names of the entries of a zip file as PyTorch sees them. Raises CheckpointError if PyTorch cannot read it."""
    from .._torch_private import archive

    start = file.tell()
    try:
        return list(archive(file).get_all_records())
    except (RuntimeError, OSError, ValueError):
        raise CheckpointError(_why_no_records(file)) from None
    finally:
        file.seek(start)


def pickled(file: IO[bytes], kind: str) -> IO[bytes]:
    """The pickle with the structure of the checkpoint, to be inspected, never loaded."""
    from .._torch_private import archive

    if kind == ZIP:
        return io.BytesIO(archive(file).get_record("data.pkl"))
    return file


def _check_zip(file: IO[bytes]) -> None:
    reject_programs(file)
    if "data.pkl" not in records(file):
        raise CheckpointError(_OTHER_ZIP)
    entries = _entries(file)
    if entries is None:
        raise CheckpointError(_CUT)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"has compressed entries, which torch.save never writes: {CONVERT}")
    if sum(entry.file_size for entry in entries) > _size(file):
        raise CheckpointError("claims more bytes than it has: it is damaged, or made to fill memory")


def _entries(file: IO[bytes]) -> list[zipfile.ZipInfo] | None:
    """The entries of a zip file as Python sees them; None if Python cannot read it."""
    start = file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return None
    finally:
        file.seek(start)


def _why_no_records(file: IO[bytes]) -> str:
    file.seek(0)
    return _CUT if _entries(file) is None else _OTHER_ZIP


def _not_a_checkpoint(head: bytes) -> str:
    text = head.lstrip()[:64].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a checkpoint: the download led to a page, not to the file; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the checkpoint itself: fetch it with `git lfs pull`"
    if head[:1] == b"\x80":
        return "is a plain pickle, not a checkpoint of torch.save; plain pickles can run code and are not read"
    return "is not a checkpoint: neither torch.save nor safetensors wrote it"


def _head(file: IO[bytes], count: int) -> bytes:
    start = file.tell()
    head = file.read(count)
    file.seek(start)
    return head


def _size(file: Any) -> int:
    start = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    return size
