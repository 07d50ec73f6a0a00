"""What TensorBoard shows of a folder of event files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def shown_events(folder: Path) -> Counter[tuple[str, int, float | bytes]]:
    """How often each (tag, step, value) is shown: scalars and pictures."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    scalars = [(tag, event.step, event.value) for tag in tags["scalars"] for event in events.Scalars(tag)]
    pictures = [(tag, e.step, e.encoded_image_string) for tag in tags["images"] for e in events.Images(tag)]
    return Counter([*scalars, *pictures])
