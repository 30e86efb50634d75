"""What is told of a long step where there is no terminal."""

import re

from saereason import progress


def test_without_a_terminal_each_step_is_a_line_and_a_long_one_more(capsys, monkeypatch):
    with progress.steps() as bars:
        with bars.step("short [3 layers]") as show:
            for done in range(1, 4):
                show(done, 3)
        monkeypatch.setattr(progress, "EVERY", -1.0)
        with bars.step("long") as show:
            for done in range(1, 4):
                show(done, 3)
    lines = [re.sub(r"[\d.]+ s", "_ s", line) for line in capsys.readouterr().err.splitlines()]
    assert lines == ["short [3 layers]: _ s", "long: 1 of 3, _ s", "long: 2 of 3, _ s", "long: _ s"]
    assert list(bars.seconds) == ["short [3 layers]", "long"]
