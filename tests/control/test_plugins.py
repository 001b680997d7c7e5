"""Plugins through the control API: what runs, what it may become, and what the journal tells of it."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from control_tools import MAKER, Client, ControlDesk, Status, refused

from host.control.plain import struct
from host.core import entries as e
from host.loader import settle
from tandem.v1 import plugin_pb2 as pb

BROKEN = "def oops(:\n"


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def edited(number: int) -> str:
    return MAKER + f"\n# {number}\n"


async def reload(client: Client, **more: Any) -> pb.ReloadPluginResponse:
    request = pb.ReloadPluginRequest(name="plugins/maker", **more)
    answer: pb.ReloadPluginResponse = await client.plugin.ReloadPlugin(request)
    return answer


def test_a_plugin_tells_what_it_offers_and_who_runs_it(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            got = (await client.plugin.GetPlugin(pb.GetPluginRequest(name="plugins/maker"))).plugin
            listed = (await client.plugin.ListPlugins(pb.ListPluginsRequest())).plugins
            models = await client.plugin.ListPlugins(pb.ListPluginsRequest(kind=pb.PLUGIN_KIND_MODEL))
        assert [one.name for one in listed] == ["plugins/maker", "plugins/shift"]
        assert [one.name for one in models.plugins] == ["plugins/shift"]
        assert list(got.instances) == ["instances/mm"]
        assert [(one.name, one.kind) for one in got.offers] == [("maker", pb.PLUGIN_KIND_STRATEGY)]
        assert "away" in struct(got.offers[0].params_schema)["$defs"]["MakerParams"]["properties"]
        assert got.permanent_digest == got.digest
        assert got.auto_reload

    asyncio.run(story())


def test_a_reload_goes_live_on_probation_and_is_promoted(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            before = (await client.plugin.GetPlugin(pb.GetPluginRequest(name="plugins/maker"))).plugin
            watch = client.plugin.WatchPlugins(pb.WatchPluginsRequest())
            assert (await watch.read()).snapshot
            desk.maker_file.write_text(edited(1))

            answer = await reload(client, etag=before.etag)

            assert answer.state == pb.VERSION_STATE_ACTIVE
            assert answer.plugin.probation_digest == answer.digest != before.digest
            assert [stage.stage for stage in answer.stages][-1] == "swap"
            seen = await watch.read()
            assert [one.name for one in seen.plugins] == ["plugins/maker"]
            promoted = await client.plugin.PromotePlugin(pb.PromotePluginRequest(name="plugins/maker"))
            assert promoted.plugin.permanent_digest == answer.digest
            assert not promoted.plugin.probation_digest
            refusal = await refused(
                client.plugin.PromotePlugin(pb.PromotePluginRequest(name="plugins/maker"))
            )
            assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "WRONG_STATE")

    asyncio.run(story())


def test_a_version_on_probation_is_rolled_back(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            before = desk.reloader.catalog.versions["maker"].digest
            desk.maker_file.write_text(edited(1))
            answer = await reload(client)
            back = await client.plugin.RollBackPlugin(
                pb.RollBackPluginRequest(name="plugins/maker", reason="odd")
            )
            assert back.plugin.digest == before
            versions = (
                await client.plugin.ListVersions(pb.ListVersionsRequest(parent="plugins/maker"))
            ).versions
        assert [(one.digest, one.state) for one in versions] == [
            (answer.digest, pb.VERSION_STATE_ROLLED_BACK),
            (before, pb.VERSION_STATE_PERMANENT),
        ]
        assert versions[0].reason.endswith(": odd")
        assert {stage.stage for stage in versions[0].stages} >= {"capture", "swap", "roll_back"}

    asyncio.run(story())


def test_a_version_that_is_no_good_is_an_answer_and_the_old_one_runs_on(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            before = desk.reloader.catalog.versions["maker"].digest
            desk.maker_file.write_text(BROKEN)
            answer = await reload(client, request_id="one")
            assert answer.state == pb.VERSION_STATE_REFUSED
            assert answer.reason
            assert answer.plugin.digest == before
            assert await reload(client, request_id="one") == answer
        desk.tick()
        assert desk.venue.open()

    asyncio.run(story())


def test_bytes_that_run_already_are_nothing_to_do(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            answer = await reload(client)
        assert (answer.state, answer.reason) == (pb.VERSION_STATE_UNSPECIFIED, "unchanged")

    asyncio.run(story())


def test_a_staged_version_goes_live_when_it_is_activated(desk: ControlDesk) -> None:
    async def story() -> None:
        desk.reloader.settings = msgspec.structs.replace(desk.reloader.settings, mode="stage")
        async with desk.serving() as client:
            desk.tick()
            desk.maker_file.write_text(edited(1))
            await desk.reloader.reload("maker", lambda: settle(desk.maker_file, apart_ms=1))
            staged = (
                await client.plugin.GetPlugin(pb.GetPluginRequest(name="plugins/maker"))
            ).plugin.staged_digest
            name = f"plugins/maker/versions/{staged[:12]}"
            answer = await client.plugin.ActivateVersion(pb.ActivateVersionRequest(name=name))
            assert answer.state == pb.VERSION_STATE_ACTIVE
            assert answer.plugin.digest == staged
            refusal = await refused(client.plugin.ActivateVersion(pb.ActivateVersionRequest(name=name)))
            assert (refusal.code, refusal.reason) == (Status.NOT_FOUND, "VERSION_NOT_FOUND")

    asyncio.run(story())


def test_a_reload_repeated_after_a_crash_before_its_answer_was_kept_changes_nothing_more(
    desk: ControlDesk,
) -> None:
    desk.tick()
    desk.maker_file.write_text(edited(1))
    # The process dies between the swap, which is journaled, and the answer.
    report = asyncio.run(desk.reload("maker"))
    assert report.state == "active"
    later = desk.restarted()
    request = pb.ReloadPluginRequest(name="plugins/maker", request_id="one")

    async def story() -> None:
        async with later.serving() as client:
            lsn = later.journal.last_lsn
            answer = await client.plugin.ReloadPlugin(request)
            assert answer.plugin.digest == report.digest
            assert await client.plugin.ReloadPlugin(request) == answer
            kinds = [type(entry) for entry in later.entries[lsn:]]
            assert e.VersionMoved not in kinds
            assert e.InstanceRevised not in kinds
            assert kinds.count(e.RequestServed) == 1

    asyncio.run(story())


def test_automatic_reload_is_switched_off_and_on(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            for enabled in (False, True):
                answer = await client.plugin.SetAutoReload(
                    pb.SetAutoReloadRequest(name="plugins/maker", enabled=enabled)
                )
                assert answer.plugin.auto_reload is enabled
                assert desk.engine.state.plugin("maker").is_auto is enabled

    asyncio.run(story())


def test_an_instance_is_not_made_of_a_version_on_probation(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            desk.maker_file.write_text(edited(1))
            await reload(client)
            instance = pb.Instance(plugin="maker", account="accounts/acc", symbols=["ETH-USDT"])
            refusal = await refused(
                client.plugin.CreateInstance(pb.CreateInstanceRequest(instance_id="eth", instance=instance))
            )
        assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "ON_PROBATION")

    asyncio.run(story())
