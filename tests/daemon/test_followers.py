# SPDX-License-Identifier: BSD-2-Clause
"""Names that an engine gives, in the fake's world: nothing is believed that is not asked twice."""

import pytest

from jaildaemon.engines.answers import Found
from jaildaemon.engines.endpoint import EngineError
from tests.daemon.engine_host import FakeEngine, Host


def test_an_engine_is_followed_while_a_rule_names_it(host: Host) -> None:
    host.want()
    assert FakeEngine.made == []
    host.want("docker:web")
    (stream,) = host.engine.streams
    host.want()
    assert stream.stopped
    assert host.backend.watcher.idle


def test_a_container_is_told_when_it_runs_and_when_it_does_not(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.run("other", 8)
    host.poke()
    assert {name: jail.number for name, jail in host.present.items()} == {"docker:web": 7}
    del host.engine.running["web"]
    host.backend.end_jail("7")
    host.poke()
    assert host.present == {}
    assert host.whys == ["its jail ended"]


def test_another_container_of_the_name_is_told_of(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.run("web", 9)
    host.poke()
    assert host.present["docker:web"].number == 9


def test_what_is_another_when_it_is_asked_again_is_not_taken(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.engine.later["web"] = Found("web", "another-id", 7)
    host.poke()
    assert host.present == {}
    host.backend.watcher.pass_time(10)
    assert host.log == ["docker:web: not taken: it ended, or was replaced, while it was looked at"]
    why = "it ended, or was replaced, while it was looked at"
    assert host.names.trouble("docker:web") == f"it runs, and cannot be taken: {why}"
    host.backend.watcher.pass_time(600)
    assert len(host.log) == 1, "said again and again"
    del host.engine.later["web"]
    host.run("web", 9)
    host.poke()
    assert host.present["docker:web"].number == 9


def test_an_engine_that_did_not_answer_is_asked_anew(host: Host) -> None:
    """A host that is too busy to have it answer in time is not so for ever."""
    host.want("docker:web")
    host.run("web", 7)
    host.engine.later["web"] = EngineError("no answer in 5 s")
    host.poke()
    host.backend.watcher.pass_time(10)
    assert host.log == ["docker:web: not taken: no answer in 5 s"]
    del host.engine.later["web"]
    host.backend.watcher.pass_time(60)
    assert host.present["docker:web"].number == 7


def test_what_ends_while_it_is_asked_for_is_not_taken(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.engine.later["web"] = None
    host.poke()
    assert host.present == {}


def test_a_pid_that_is_no_init_is_not_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.backend.begin_jail("8")
    resolve = host.backend.resolve
    monkeypatch.setattr(host.backend, "resolve", lambda _: resolve("8"))
    host.poke()
    host.backend.watcher.pass_time(10)
    assert host.present == {}
    why = "it shares the PID namespace of another container, whose init is 8"
    assert host.log == [f"docker:web: not taken: {why}"]


def test_a_pid_that_is_not_shown_to_be_the_containers_is_not_taken(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.engine.doubts["web"] = "it is another's"
    host.poke()
    host.backend.watcher.pass_time(10)
    assert host.present == {}
    assert host.log == ["docker:web: not taken: it is another's"]


def test_after_the_stream_ended_all_is_looked_at_anew(host: Host) -> None:
    host.want("docker:web")
    host.backend.watcher.pass_time(5)
    host.engine.streams[-1].ended("docker ended")
    assert host.log == ["docker: docker ended"]
    assert host.names.trouble("docker:web") == "docker does not answer: docker ended"
    assert host.names.engines() == {"docker": "docker does not answer: docker ended"}
    host.run("web", 7)
    host.backend.watcher.pass_time(0.7)
    assert len(host.engine.streams) == 1
    host.backend.watcher.pass_time(0.6)
    assert len(host.engine.streams) == 2
    assert host.present["docker:web"].number == 7
    assert host.names.trouble("docker:web") is None
    assert host.names.engines() == {"docker": None}


def test_an_engine_that_is_back_is_asked_at_once(host: Host) -> None:
    host.want("docker:web")
    engine = host.engine
    engine.error = EngineError("docker failed: no engine")
    engine.streams[-1].ended("docker failed: no engine")
    host.backend.watcher.pass_time(600)
    host.run("web", 7)
    engine.error = None
    engine.backs[-1]()
    host.backend.watcher.settle()
    assert host.present["docker:web"].number == 7


def test_an_engine_that_is_not_there_is_asked_ever_more_rarely(host: Host) -> None:
    host.want("docker:web")
    engine = host.engine
    engine.error = EngineError("no engine")
    engine.streams[-1].ended("no engine")
    host.backend.watcher.pass_time(600)
    assert host.log == ["docker: no engine"]
    assert engine.scans < 20
    engine.error = None
    host.backend.watcher.pass_time(73)
    assert len(engine.streams) == 2


def test_a_bad_answer_changes_nothing_and_is_asked_for_again(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.engine.error = EngineError("no answer in 5 s")
    del host.engine.running["web"]
    host.engine.more["old"] = "id-web"
    host.poke()
    assert host.present["docker:web"].number == 7
    host.engine.error = None
    host.backend.watcher.pass_time(2)
    assert host.present == {}


def test_many_events_are_one_look(host: Host) -> None:
    host.want("docker:web")
    host.backend.watcher.pass_time(2)
    before = host.engine.scans
    for _ in range(100):
        host.engine.streams[-1].poke()
    host.backend.watcher.pass_time(0.5)
    assert host.engine.scans - before <= 2


def test_a_jail_that_could_not_be_entered_is_not_tried_at_once_again(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.gone("docker:web", "it could not be entered")
    host.names.look("docker:web", 1.0)
    host.poke()
    assert host.present == {}
    host.backend.watcher.pass_time(1.1)
    assert host.present["docker:web"].number == 7


def test_a_pattern_that_misses_a_container_for_its_dots_says_so(host: Host) -> None:
    host.want("docker:stack_web*", "docker:web")
    host.poke()
    assert host.names.trouble("docker:stack_web*") is None
    host.engine.more = {"stack_web.1.x7": "1", "stack_web.2.x8": "2"}
    host.poke()
    why = "stack_web.1.x7 does not fit: neither * nor ? matches a dot"
    assert host.names.trouble("docker:stack_web*") == why
    assert host.names.trouble("docker:web") is None
    host.engine.more["stack_web"] = "3"
    host.poke()
    assert host.names.trouble("docker:stack_web*") is None
