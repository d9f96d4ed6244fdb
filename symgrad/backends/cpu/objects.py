"""Object code on disk: content-addressed, private to its user, checked on every read, bounded in size.

A cache is never worth an error or a wrong result: what cannot be read, or does not match its checksum, is
compiled again; a folder that cannot be written, or that somebody else owns, is left alone. Both are said
once, as a warning.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from symgrad.base.config import config

MAGIC = b"symgrad object 1\n"
DIGEST = hashlib.sha256().digest_size
MIB = 2 ** 20
TOUCH_AFTER = 3600.0                      # seconds; a use renews a file's time at most this often
PRUNE_EVERY = 64                          # stores between two looks at the size of the folder


class CacheWarning(UserWarning):
    """The kernel cache cannot be used as it is; kernels are compiled instead."""


def default_folder() -> Path:
    """The folder of compiled kernels: the setting `cache_dir`, else the user's cache folder."""
    if config.cache_dir:
        return Path(config.cache_dir)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "symgrad"


class ObjectCache:
    """Object files by key in one folder. `limit` is in bytes; the least recently used files go first."""

    def __init__(self, folder: Path, limit: int = 1024 * MIB) -> None:
        self.folder, self.limit = Path(folder), limit
        self._stores, self._warned = 0, False
        self._usable: bool | None = None               # not looked at yet

    def load(self, key: str) -> bytes | None:
        """The object stored under `key`, or None."""
        if not self._is_usable():
            return None
        path = self._path(key)
        try:
            content = self._read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot read {path}: {error}")
            return None
        payload = content[len(MAGIC) + DIGEST:]
        if content[:len(MAGIC) + DIGEST] != MAGIC + hashlib.sha256(payload).digest():
            self._remove(path)
            self._warn(f"{path} was damaged and has been removed")
            return None
        return payload

    def store(self, key: str, payload: bytes) -> None:
        """Keep an object under `key`: all of it or, on any trouble, none."""
        if not self._is_usable():
            return
        path = self._path(key)
        temporary = None
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="new-")     # with mode 0600
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, path)
        except OSError as error:
            if temporary:
                self._remove(Path(temporary))
            self._warn(f"cannot write {path}: {error}")
            return
        if self._stores % PRUNE_EVERY == 0:
            self.prune()
        self._stores += 1

    def prune(self) -> None:
        """Bring the folder, if above its limit, a tenth below: the least recently used files go."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return
        for _, size, path in files:
            self._remove(path)
            total -= size
            if total <= 0.9 * self.limit:
                return

    def clear(self) -> int:
        """Remove every object; returns how many there were."""
        files = list(self._files())
        for _, _, path in files:
            self._remove(path)
        return len(files)

    # ---- files ---------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.o"

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, size, path) of each file that this cache made, abandoned temporary ones too."""
        for pattern in ("??/*.o", "??/new-*"):
            for path in self.folder.glob(pattern):
                try:
                    status = path.stat()
                except OSError:
                    continue                                 # another process pruned it
                yield status.st_mtime, status.st_size, path

    @staticmethod
    def _read(path: Path) -> bytes:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if _is_foreign(status):
                raise PermissionError("it belongs to another user or others may write to it")
            if time.time() - status.st_mtime > TOUCH_AFTER:
                os.utime(handle if os.utime in os.supports_fd else path)
            return file.read()

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            path.unlink()
        except OSError:
            pass                                 # gone already, or not ours: nothing depends on it

    def _is_usable(self) -> bool:
        """Whether the folder exists, made here if need be, and is this user's alone."""
        if self._usable is None:
            self._usable = self._prepare()
        return self._usable

    def _prepare(self) -> bool:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _owner_differs(self.folder.stat()):
                self._warn(f"{self.folder} belongs to another user")
                return False
            self.folder.chmod(0o700)
        except OSError as error:
            self._warn(f"cannot use {self.folder}: {error}")
            return False
        return True

    def _warn(self, trouble: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"kernel cache: {trouble}; kernels are compiled instead "
                          "(SYMGRAD_CACHE_DIR chooses another folder)", CacheWarning, stacklevel=4)


def _owner_differs(status: os.stat_result) -> bool:
    return hasattr(os, "getuid") and status.st_uid != os.getuid()


def _is_foreign(status: os.stat_result) -> bool:
    return _owner_differs(status) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
