# SPDX-License-Identifier: BSD-2-Clause
"""When a container loses its name: what an engine says is believed, its silence is not."""

from jaildaemon.engines.answers import Found
from tests.daemon.engine_host import Host


def test_one_that_is_in_no_list_and_lives_keeps_its_probe(host: Host) -> None:
    """As podman's that are stopping: an engine's silence is no end, the kernel's word is."""
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    del host.engine.running["web"]
    for _ in range(3):
        host.poke()
    assert host.present["docker:web"].number == 7
    assert host.log == ["docker:web: docker does not say that it runs, and it does"]
    host.engine.more["web"] = "id-web"
    host.poke()
    assert host.present["docker:web"].number == 7
    host.backend.end_jail("7")
    host.poke()
    assert host.present == {}


def test_one_that_has_another_name_loses_its_own_at_once(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.engine.more["old"] = host.engine.running.pop("web").id
    host.poke()
    assert host.present == {}
    assert host.whys == ["its container is called old now"]
    assert "7" in host.backend.jails


def test_a_name_that_another_has_is_lost_at_once_though_that_one_cannot_be_taken(
    host: Host,
) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    del host.engine.running["web"]
    host.engine.more["web"] = "another-id"
    host.poke()
    assert (host.present, host.whys) == ({}, ["another container has its name now"])
    host.run("web", 7)
    host.poke()
    assert host.present["docker:web"].number == 7
    host.engine.doubts["web"] = "it is another's"
    host.run("web", 9)
    host.poke()
    assert host.present == {}


def test_what_an_earlier_daemon_found_is_compared_by_what_the_kernel_shows(host: Host) -> None:
    for name, number in (("web", 7), ("db", 8), ("mail", 9)):
        host.backend.begin_jail(str(number))
        host.seen(f"docker:{name}", host.backend.resolve(str(number)))
    host.want("docker:web", "docker:db", "docker:mail")
    engine = host.engine
    engine.pids = {"1": 11, "2": 8, "3": 12, "4": 10}
    engine.more = {"other": "1", "renamed": "2", "web": "3"}
    engine.running["mail"] = Found("mail", "4", 10)
    host.backend.begin_jail("10")
    host.poke()
    assert host.present["docker:mail"].number == 10
    assert "docker:web" not in host.present, "its name has another id"
    assert "docker:db" not in host.present, "its id has another name"
    assert sorted(host.whys)[:2] == [
        "another container has its name now",
        "another container has its name now",
    ]
    assert sorted(host.whys)[2] == "its container is called renamed now"


def test_what_an_earlier_daemon_took_wrongly_is_withdrawn(host: Host) -> None:
    host.backend.begin_jail("7")
    host.seen("docker:web", host.backend.resolve("7"))
    host.want("docker:web")
    host.engine.doubts["web"] = "it is another's"
    host.engine.running["web"] = Found("web", "1", 7)
    host.poke()
    host.backend.watcher.pass_time(10)
    assert (host.present, host.whys) == ({}, ["it cannot be taken: it is another's"])


def test_one_of_which_nothing_is_told_takes_no_other_with_it(host: Host) -> None:
    host.want("docker:web", "docker:sick")
    host.run("web", 7)
    host.engine.more["sick"] = "id-sick"
    host.engine.silent["sick"] = "no answer in 5 s"
    host.poke()
    assert host.present["docker:web"].number == 7
    why = "docker tells no more of it: no answer in 5 s"
    assert host.names.trouble("docker:sick") == why
    assert host.names.refused() == {"docker:sick": why}
    assert host.log == [f"docker:sick: {why}"]
    scans = host.engine.scans
    host.backend.watcher.pass_time(600)
    assert scans < host.engine.scans < scans + 20
    host.engine.silent.clear()
    host.run("sick", 8)
    host.backend.watcher.pass_time(73)
    assert host.present["docker:sick"].number == 8
