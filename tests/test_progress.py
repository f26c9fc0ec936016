"""A progress bar is seen while it runs, and leaves nothing behind."""

import IPython.display

from cnnviz import progress


def test_nothing_is_written_to_a_pipe(capsys):
    with progress.progress_bar(3, "doing", "thing") as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_the_bar_until_it_ends(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data)

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: Handle())
    with progress.progress_bar(3, "doing", "thing") as bar:
        for _ in range(3):
            bar.update()
            bar.refresh()
    assert any("doing" in data.get("text/plain", "") for data in shown)
    assert shown[-1] == {}
