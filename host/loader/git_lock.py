"""Whether git is just rewriting files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["git_lock"]


def git_lock(paths: Iterable[Path]) -> Path | None:
    """Return the lock file of a repository around one of these paths, if git holds one now.

    git holds `index.lock` while it writes a working tree (checkout, pull, rebase), so that files are
    those of no commit until it is gone. A git that was killed leaves it behind.
    """
    return next((lock for path in paths for lock in _locks(path.absolute()) if lock.exists()), None)


def _locks(path: Path) -> Iterator[Path]:
    for folder in (path, *path.parents):
        dot_git = folder / ".git"
        if dot_git.is_dir():
            yield dot_git / "index.lock"
            return
        if dot_git.is_file():  # a worktree or a submodule: the file says where its index is
            target = dot_git.read_text(errors="replace").partition("gitdir:")[2].strip()
            yield folder / target / "index.lock"
            return
