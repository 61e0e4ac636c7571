"""Which frames a queue hands out, and to whom."""

from concurrent.futures import Future
from pathlib import Path

from colorcli.farm.orders import ShotOrder
from colorcli.farm.queue import Queue
from colorcli.farm.seat import Seat
from colorcli.farm.task import Shot, Task
from colorcli.shot.plan import ShotRequest, plan_shots
from tests.shot.studio import draw_shot


def tasks_of(folder: Path, count: int) -> list[Task]:
    """Frames of one shot that have nothing in common."""
    drawn = draw_shot(folder / "walk", range(1, count + 1))
    (plan,) = plan_shots(ShotRequest((str(drawn),), (str(folder / "key.png"),)))
    places = {job.source.name: place for place, job in enumerate(plan.jobs)}
    shot = Shot(0, plan, ShotOrder(0, plan, "", ""), None, places, stretch=1, begins_anew=True, probe=None)
    return [Task(shot, job, (), lambda record: record, Future()) for job in plan.jobs]


def test_a_frame_that_nobody_waits_for_any_more_is_not_handed_out(tmp_path: Path) -> None:
    tasks, queue = tasks_of(tmp_path, 3), Queue()
    for task in tasks:
        queue.put(task)
    tasks[1].future.cancel()
    queue.sort_incoming(workers=1)
    seat = Seat("node0", worker=None, asked=None)
    assert [queue.next_for(seat) for _ in range(3)] == [tasks[0], tasks[2], None]
