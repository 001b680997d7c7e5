"""What is noticed of changes to plugin files, with real files and editors."""

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from host.loader import Notice, PluginWatcher, settle
from tests.loader.conftest import WritePlugin

DEADLINE_S = 30.0


class Watching:
    """A running watcher whose first notice was taken."""

    def __init__(self, watcher: PluginWatcher, notices: AsyncIterator[Notice], first: Notice) -> None:
        self.watcher = watcher
        self.notices = notices
        self.first = first

    async def next(self) -> Notice:
        async with asyncio.timeout(DEADLINE_S):
            return await anext(self.notices)

    async def until(self, is_enough: Callable[[Notice], bool]) -> Notice:
        """Take notices until their sum is enough, and return that."""
        total = Notice()
        while not is_enough(total):
            notice = await self.next()
            total = Notice(
                {**total.changed, **notice.changed},
                (*total.removed, *notice.removed),
                (*total.files, *notice.files),
                (*total.problems, *notice.problems),
            )
        return total

    async def until_changed(self, *names: str) -> Notice:
        return await self.until(lambda notice: set(names) <= notice.changed.keys())


Story = Callable[[Watching], Coroutine[Any, Any, None]]


def watch(story: Story, dirs: Iterable[Path], files: Iterable[Path] = ()) -> None:
    async def main() -> None:
        watcher = PluginWatcher(dirs, files)
        notices = aiter(watcher)
        try:
            async with asyncio.timeout(DEADLINE_S):
                first = await anext(notices)
            await story(Watching(watcher, notices, first))
        finally:
            await notices.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    return tmp_path / "plugins"


def test_first_notice_names_everything(write: WritePlugin, plugins: Path, tmp_path: Path) -> None:
    write("alpha.py")
    write("models/beta/__init__.py")
    config = tmp_path / "tandem.toml"

    async def story(watching: Watching) -> None:
        assert watching.first.changed == {"alpha": plugins / "alpha.py", "beta": plugins / "models/beta"}
        assert watching.first.files == (config,)

    watch(story, [plugins], [config])


def rename_over(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text("x = 2\n")
    temporary.replace(path)


def write_in_place(path: Path) -> None:
    path.write_text("x = 2\n")


def save_like_vim(path: Path) -> None:
    probe, swap, backup = path.with_name("4913"), path.with_name(f".{path.name}.swp"), Path(f"{path}~")
    swap.touch()
    probe.touch()
    probe.unlink()
    path.rename(backup)
    path.write_text("x = 2\n")
    backup.unlink()
    swap.unlink()


def save_with_vim(path: Path) -> None:
    if shutil.which("vim") is None:
        pytest.skip("vim is not installed")
    commands = ["set backup writebackup backupcopy=no", "%s/1/2/", "wq"]
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["vim", "-u", "NONE", "-N", "-es", *arguments, str(path)], check=True)


def edit_with_sed(path: Path) -> None:
    subprocess.run(["sed", "-i", "s/1/2/", str(path)], check=True)


def delete_and_create(path: Path) -> None:
    path.unlink()
    path.write_text("x = 2\n")


@pytest.mark.parametrize(
    "save", [rename_over, write_in_place, save_like_vim, save_with_vim, edit_with_sed, delete_and_create]
)
def test_every_way_to_save_a_file_is_noticed_as_a_change_of_that_plugin(
    write: WritePlugin, plugins: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], None]
) -> None:
    monkeypatch.setattr("host.loader.watch._GONE_AFTER_S", DEADLINE_S)
    path = write("alpha.py", "x = 1\n")
    write("beta.py", "x = 1\n")

    async def story(watching: Watching) -> None:
        await asyncio.to_thread(save, path)
        notice = await watching.until_changed("alpha")
        assert notice == Notice({"alpha": path})
        assert (await settle(path)).files == {"alpha.py": b"x = 2\n"}

    watch(story, [plugins])


def test_rewrites_of_equal_size_are_all_noticed(write: WritePlugin, plugins: Path) -> None:
    path = write("alpha.py", "x = 10\n")

    async def story(watching: Watching) -> None:
        for number in range(11, 31):
            path.write_text(f"x = {number}\n")
            await watching.until_changed("alpha")
            assert (await settle(path, apart_ms=1.0)).files == {"alpha.py": f"x = {number}\n".encode()}

    watch(story, [plugins])


def test_slow_writer_is_settled_when_done(write: WritePlugin, plugins: Path) -> None:
    path = write("alpha.py", "x = 1\n")

    async def story(watching: Watching) -> None:
        with path.open("w") as writer:
            for number in range(20):
                writer.write(f"x = {number}\n")
                writer.flush()
                if number == 0:
                    await watching.until_changed("alpha")
                    settling = asyncio.create_task(settle(path, apart_ms=1.0))
                await asyncio.sleep(0)
                assert not settling.done()
        assert (await settling).files["alpha.py"].endswith(b"x = 19\n")

    watch(story, [plugins])


def test_litter_is_not_noticed(write: WritePlugin, plugins: Path) -> None:
    write("alpha/__init__.py")
    write("beta.py")

    async def story(watching: Watching) -> None:
        for litter in ("__pycache__/a.pyc", ".git/index", ".a.py.swp", "a.py~", "4913", "#a.py#", "a.py.bak"):
            write(f"alpha/{litter}", "junk")
        write("beta.py", "x = 2\n")
        assert set((await watching.next()).changed) == {"beta"}

    watch(story, [plugins])


def test_any_file_of_a_folder_plugin_counts(write: WritePlugin, plugins: Path) -> None:
    write("alpha/__init__.py")
    write("beta.py")

    async def story(watching: Watching) -> None:
        for file in ("helpers.py", "data/model.onnx", "data/deep/er/table.csv", "data/deep/er/more.csv"):
            write(f"alpha/{file}", "x")
            assert set((await watching.next()).changed) == {"alpha"}

    watch(story, [plugins])


def test_new_plugins_are_noticed_wherever_they_appear(
    write: WritePlugin, plugins: Path, tmp_path: Path
) -> None:
    write("alpha.py")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "packed").mkdir(parents=True)
    (elsewhere / "packed" / "__init__.py").touch()

    async def story(watching: Watching) -> None:
        write("dropped.py")
        assert (await watching.until_changed("dropped")).changed["dropped"] == plugins / "dropped.py"
        write("new/folder/inner.py")
        await watching.until_changed("inner")
        (elsewhere / "packed").rename(plugins / "packed")
        await watching.until_changed("packed")
        write("packed/core.py", "x = 1\n")
        await watching.until_changed("packed")

    watch(story, [plugins])


def test_removed_plugin_is_reported_once_and_its_return_as_a_change(
    write: WritePlugin, plugins: Path
) -> None:
    path = write("alpha.py")
    write("beta.py")

    async def story(watching: Watching) -> None:
        path.unlink()
        assert await watching.next() == Notice(removed=("alpha",))
        write("beta.py", "x = 2\n")
        assert set((await watching.next()).changed) == {"beta"}
        write("alpha.py")
        assert await watching.until_changed("alpha") == Notice({"alpha": path})

    watch(story, [plugins])


def test_plugin_that_is_gone_for_a_moment_was_not_removed(
    write: WritePlugin, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.loader.watch._GONE_AFTER_S", DEADLINE_S)
    path = write("alpha.py")
    write("beta.py")

    async def story(watching: Watching) -> None:
        path.unlink()
        write("beta.py", "x = 2\n")
        notice = await watching.until_changed("beta")
        write("alpha.py")
        assert (notice.removed, await watching.next()) == ((), Notice({"alpha": path}))

    watch(story, [plugins])


def test_checkout_of_two_hundred_files_is_noticed_when_git_is_done(
    write: WritePlugin, tmp_path: Path
) -> None:
    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True)

    names = [f"p{number:03}" for number in range(200)]
    git("init", "-b", "one")
    for branch in ("one", "two"):
        if branch == "two":
            git("checkout", "-b", "two")
        for name in names:
            write(f"{name}.py", f"x = '{branch}'\n")
        git("add", ".")
        git("commit", "-m", branch)

    async def story(watching: Watching) -> None:
        await asyncio.to_thread(git, "checkout", "one")
        first = await watching.next()
        assert all(path.read_text() == "x = 'one'\n" for path in first.changed.values())
        rest = set(names) - first.changed.keys()
        # Mostly none: the kernel's events may trail behind git on a busy machine.
        await watching.until_changed(*rest)
        assert not first.removed

    watch(story, [tmp_path / "plugins"])


def test_changes_under_a_git_lock_are_one_notice(write: WritePlugin, plugins: Path, tmp_path: Path) -> None:
    write("alpha.py", "x = 1\n")
    write("beta.py", "x = 1\n")
    lock = tmp_path / ".git" / "index.lock"
    lock.parent.mkdir()

    async def story(watching: Watching) -> None:
        lock.touch()
        write("alpha.py", "x = 2\n")
        waiting = asyncio.create_task(watching.next())
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        write("beta.py", "x = 2\n")
        lock.unlink()
        assert set((await waiting).changed) == {"alpha", "beta"}

    watch(story, [plugins])


def test_lock_that_a_killed_git_left_does_not_hide_changes_for_ever(
    write: WritePlugin, plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.loader.watch._GIT_PATIENCE_S", 0.05)
    write("alpha.py", "x = 1\n")
    lock = tmp_path / ".git" / "index.lock"
    lock.parent.mkdir()
    lock.touch()

    async def story(watching: Watching) -> None:
        write("alpha.py", "x = 2\n")
        await watching.until_changed("alpha")

    watch(story, [plugins])


def switch(link: Path, target: str) -> None:
    temporary = link.with_name("next-link")
    temporary.symlink_to(target)
    temporary.replace(link)


@pytest.mark.parametrize("inside", ["", "sub"])
def test_switched_release_link_is_noticed_and_followed(
    write: WritePlugin, tmp_path: Path, inside: str
) -> None:
    for release in ("41", "42"):
        write(f"../releases/{release}/{inside}/alpha.py", f"x = {release}\n")
    write("../releases/42/added.py", "x = 1\n")
    link = tmp_path / "current"
    link.symlink_to("releases/41")
    folder = link / inside

    async def story(watching: Watching) -> None:
        path = watching.first.changed["alpha"]
        switch(link, "releases/42")
        await watching.until_changed("alpha", *([] if inside else ["added"]))
        assert (await settle(path)).files == {"alpha.py": b"x = 42\n"}
        # The kernel watches what the link led to when watching began.
        (tmp_path / "releases/42" / inside / "alpha.py").write_text("x = 43\n")
        await watching.until_changed("alpha")
        assert (await settle(path)).files == {"alpha.py": b"x = 43\n"}

    watch(story, [folder])


def test_links_among_the_plugins_are_followed_too(write: WritePlugin, plugins: Path, tmp_path: Path) -> None:
    for release in ("41", "42"):
        write(f"../releases/{release}/__init__.py", f"x = {release}\n")
    single = write("../single.py", "x = 1\n")
    write("beta.py")
    (plugins / "alpha").symlink_to("../releases/41")
    (plugins / "single.py").symlink_to("../single.py")

    async def story(watching: Watching) -> None:
        switch(plugins / "alpha", "../releases/42")
        assert set((await watching.until_changed("alpha")).changed) == {"alpha"}
        write("../releases/42/core.py", "x = 1\n")
        await watching.until_changed("alpha")
        single.write_text("x = 2\n")
        assert set((await watching.until_changed("single")).changed) <= {"single", "alpha"}

    watch(story, [plugins])


def test_folder_that_comes_later_or_is_replaced_is_watched(
    write: WritePlugin, plugins: Path, tmp_path: Path
) -> None:
    write("alpha.py", "x = 1\n")
    late = tmp_path / "late"

    async def story(watching: Watching) -> None:
        assert any(str(late) in str(problem) for problem in watching.first.problems)
        (tmp_path / "late-new").mkdir()
        (tmp_path / "late-new" / "beta.py").touch()
        (tmp_path / "late-new").rename(late)
        await watching.until_changed("beta")
        (late / "gamma.py").touch()
        await watching.until_changed("gamma")
        plugins.rename(tmp_path / "old")
        write("alpha.py", "x = 2\n")
        await watching.until_changed("alpha")
        write("alpha.py", "x = 3\n")
        await watching.until_changed("alpha")

    watch(story, [plugins, late])


def test_shared_code_marks_exactly_its_dependants(write: WritePlugin, plugins: Path) -> None:
    write("alpha.py", "from ._shared.ema import x\n")
    write("models/beta/__init__.py", "from ..._shared.ema import x\n")
    write("gamma.py", "from ._later import x\n")
    write("delta.py", "x = 1\n")
    ema = write("_shared/ema.py", "from .base import x\n")
    write("_shared/base.py", "x = 1\n")

    async def story(watching: Watching) -> None:
        assert watching.watcher.dependants(ema) == ["alpha", "beta"]
        write("_shared/base.py", "x = 2\n")
        assert set((await watching.next()).changed) == {"alpha", "beta"}
        write("_later.py", "x = 1\n")
        assert set((await watching.next()).changed) == {"gamma"}
        write("_shared/unused.py", "x = 1\n")
        write("delta.py", "from ._later import x\n")
        assert set((await watching.next()).changed) == {"delta"}
        write("_later.py", "x = 2\n")
        assert set((await watching.next()).changed) == {"gamma", "delta"}

    watch(story, [plugins])


def test_name_taken_twice_is_a_problem_until_it_is_not(
    write: WritePlugin, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.loader.watch._GONE_AFTER_S", 0.0)
    write("alpha.py")

    async def story(watching: Watching) -> None:
        second = write("models/alpha.py")
        notice = await watching.until(lambda notice: bool(notice.problems))
        assert "has the same name" in str(notice.problems[0])
        assert not notice.removed
        second.unlink()
        assert (await watching.until_changed("alpha")).changed == {"alpha": plugins / "alpha.py"}

    watch(story, [plugins])


@pytest.mark.parametrize("save", [rename_over, write_in_place, save_like_vim])
def test_extra_file_is_noticed(
    write: WritePlugin, plugins: Path, tmp_path: Path, save: Callable[[Path], None]
) -> None:
    write("alpha.py")
    config = tmp_path / "tandem.toml"
    config.write_text("[node]\n")

    async def story(watching: Watching) -> None:
        save(config)
        notice = await watching.until(lambda notice: bool(notice.files))
        assert (set(notice.files), notice.changed) == ({config}, {})

    watch(story, [plugins], [config])


def test_extra_file_behind_a_switched_link_is_noticed(
    write: WritePlugin, plugins: Path, tmp_path: Path
) -> None:
    write("alpha.py")
    for version in ("1", "2"):
        write(f"../data{version}/tandem.toml", "same size\n")
    link, config = tmp_path / "..data", tmp_path / "tandem.toml"
    link.symlink_to("data1")
    config.symlink_to("..data/tandem.toml")

    async def story(watching: Watching) -> None:
        switch(link, "data2")
        await watching.until(lambda notice: config in notice.files)

    watch(story, [plugins], [config])


def test_changes_while_a_notice_is_worked_on_are_kept(write: WritePlugin, plugins: Path) -> None:
    names = [f"p{number}" for number in range(30)]
    for name in names:
        write(f"{name}.py", "x = 1\n")

    async def story(watching: Watching) -> None:
        for name in names:
            write(f"{name}.py", "x = 2\n")
        await watching.until_changed(*names)

    watch(story, [plugins])


def test_second_iteration_names_everything_again(write: WritePlugin, plugins: Path) -> None:
    write("alpha.py", "x = 1\n")

    async def story(watching: Watching) -> None:
        await watching.notices.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(DEADLINE_S):
            async for notice in watching.watcher:
                assert set(notice.changed) == {"alpha"}
                break

    watch(story, [plugins])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_watching_ends_with_its_consumer(write: WritePlugin, plugins: Path) -> None:
    write("alpha.py")

    async def story(watching: Watching) -> None:
        waiting = asyncio.create_task(watching.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    most = descriptors() + 10
    for _ in range(10):
        watch(story, [plugins])
    for thread in threading.enumerate():
        if thread.name.startswith("plugin-watch"):
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
    give_up_at = time.monotonic() + DEADLINE_S
    while descriptors() >= most and time.monotonic() < give_up_at:
        time.sleep(0.01)  # the kernel side is closed by a thread that Python does not know
    assert descriptors() < most
