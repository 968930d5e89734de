"""A plugin of pytest for redis-py.sh: which of redis-py's tests are left out, and the reasons counted.

A line of the file in FLOTILLA_SKIP is `reason | pattern`: tests whose ids, behind the run's name and a colon, match the pattern (a
regular expression) are left out for that reason. A test that fails because the server doesn't know a command, or can't change a
setting, is left out too, and so is, in the plain run, one that fails because keys are in different slots: what the server answers
is the reason.
"""
import os
import re
from collections import Counter

import pytest

UNKNOWN = re.compile(
    r"unknown (?:command|subcommand) '([^']*)'|(\w+) command doesn't exist in Redis commands|(DEBUG) command not allowed"
    r"|ACL SETUSER modifier '[-+](\w+)': Unknown command",
    re.IGNORECASE,
)
CROSS_SLOT = re.compile(r"CROSSSLOT|ClusterCrossSlotError|Keys in request don't hash to the same slot|isn't of one slot")
SETTING = re.compile(r"Unknown option or number of arguments for CONFIG SET|CONFIG SET failed .*immutable config")
MODE = os.environ.get("FLOTILLA_MODE", "plain")
left_out, commands, by_answer = Counter(), Counter(), []


def rules():
    with open(os.environ["FLOTILLA_SKIP"]) as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                reason, _, pattern = line.partition("|")
                yield reason.strip(), re.compile(pattern.strip())


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    if MODE == "plain":
        # A node that forwards is one server to its clients, whatever it says of clusters.
        session.config.REDIS_INFO["cluster_enabled"] = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    kept, dropped, known = [], [], list(rules())
    for item in items:
        reason = next((reason for reason, pattern in known if pattern.search(f"{MODE}:{item.nodeid}")), None)
        if reason is None:
            kept.append(item)
        else:
            left_out[reason] += 1
            dropped.append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.excinfo is not None:
        words = list(chain(call.excinfo.value))
        found = next(filter(None, map(UNKNOWN.search, words)), None)
        reason = None
        if found:
            name = next(filter(None, found.groups())).upper()
            commands[name] += 1
            reason = f"there is no {name}"
        elif any(map(SETTING.search, words)):
            reason = "settings that can't be changed while it runs, or that only Redis has"
        elif MODE == "plain" and any(map(CROSS_SLOT.search, words)):
            reason = "keys of different slots in one command or transaction"
        if reason:
            if not found:
                left_out[reason] += 1
                by_answer.append(item.nodeid)
            report.outcome = "skipped"
            report.longrepr = (str(item.path), 0, f"Skipped: {reason}")


def chain(error):
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    skipped = len(terminalreporter.stats.get("skipped", []))
    counts = {name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error")}
    write(f"{MODE}: passed {counts['passed']}, failed {counts['failed'] + counts['error']}")
    for reason, count in left_out.most_common():
        write(f"  left out {count}: {reason}")
    write(f"  left out {sum(commands.values())}: commands that aren't there: {dict(commands.most_common())}")
    write(f"  left out {skipped - sum(commands.values()) - len(by_answer)}: by the tests' own marks")
