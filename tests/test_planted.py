"""The command that plants faults runs, and its judge is strict."""

import planted
import pytest


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(planted, "HOME", tmp_path)
    for group, (_, *rest) in planted.GROUPS.items():
        monkeypatch.setitem(planted.GROUPS, group, (["plain on faces"], *rest))


def test_a_part_of_the_command(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Head\n\n| healthy | old |\n")
    done = planted.main(["--only", ": (forgotten|nan|40)$", "--markdown", str(page)])
    assert [row.outcome for row in done] == ["nothing", "named", "named"]
    assert capsys.readouterr().out.startswith("nothing   plain on faces: 40")
    assert page.read_text().startswith("# Head\n\n| healthy | networks | fault |")
    assert "| all | 1 |  |  |  | 1 | 1 |" in page.read_text() and "old" not in page.read_text()
