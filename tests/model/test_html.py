"""What notebooks show."""

from __future__ import annotations

from flexray.model.snapshot import DeviceView, QueueView, RequestView, Snapshot


def test_a_snapshot_is_tables_and_whatever_is_in_it_is_text() -> None:
    device = DeviceView("n1/gpu0", "n1", "nvidia/T4", "gpu", "fake", "ready", "none", 0.25, 0.75, 16, 4, 12, ("s1",))
    waits = RequestView("r1", "S", "f", "<b>", 0, "queued", "no_room", 1, "gpu=0.5", 0.0, 0)
    shown = Snapshot(0.0, 1, (), (device,), (), (QueueView("<b>", 1, 0, 0.25),), (waits,), ())._repr_html_()
    assert "<caption>1 devices</caption>" in shown and "<td>25%</td><td>4 of 16 MiB</td>" in shown
    assert "<td>r1</td><td>&lt;b&gt;</td><td>gpu=0.5</td><td>no_room</td>" in shown and "<b>" not in shown
