"""Canvases and batches against the published rules, worked out by hand."""

from collections import Counter

import numpy as np
import pytest

from colorcli.train.data.buckets import SIZES_768, AspectPlan, SegmentPlan, ShuffledPlan, canvas_for, canvas_sizes

XL = canvas_sizes(1024)


def sizes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    width = rng.integers(800, 1600, count).astype(np.int32)
    height = rng.integers(800, 1600, count).astype(np.int32)
    height[::5] = width[::5]
    return width, height


def canvas(*pictures: tuple[int, int]) -> tuple[int, int]:
    """The canvas (height, width) of a batch of pictures (width, height)."""
    width, height = np.array(pictures, np.int32).T
    return canvas_for(width, height, XL, np.random.default_rng(0))


def test_the_canvases_of_xl_are_those_that_were_published() -> None:
    wide = [(992, 1056), (960, 1088), (928, 1120), (896, 1152), (864, 1184), (832, 1216), (800, 1248), (768, 1280),
            (736, 1312)]  # fmt: skip
    assert Counter(XL) == Counter([(1024, 1024)] * 4 + wide + [(w, h) for h, w in wide])


@pytest.mark.parametrize("side", [256, 320, 512, 640])
def test_scaled_canvases_keep_the_rules(side: int) -> None:
    for height, width in canvas_sizes(side):
        assert height % 32 == width % 32 == 0 and height + width == 2 * side
        assert max(height, width) / min(height, width) <= 1312 / 736


def test_the_768_canvases_are_multiples_of_64_that_can_be_turned() -> None:
    assert {(w, h) for h, w in SIZES_768} == set(SIZES_768)
    assert all(side % 64 == 0 for size in SIZES_768 for side in size)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([(1500, 1000)], (832, 1216)),                # 1.5: 1216 <= int(1.5 * 832) - 2; 800x1248 would need 1.56
        ([(3000, 1000)], (736, 1312)),                # narrower than the narrowest
        ([(1500, 1000), (1300, 1000)], (896, 1152)),  # the squarest picture decides: 1.3, 864x1184 would need 1.37
        ([(1001, 1000)], (1024, 1024)),               # 992x1056 would cut 63 pixels more than there are
        ([(1000, 1500)], (1216, 832)),
        ([(1216, 832)], (864, 1184)),                 # its own canvas leaves no two pixels over
        ([(1220, 832)], (832, 1216)),
        ([(900, 900), (900, 900)], (1024, 1024)),
    ],
)
def test_a_batch_gets_the_nearest_canvas_that_all_its_pictures_cover(
    pictures: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    assert canvas(*pictures) == expected


def test_a_batch_of_squares_draws_among_the_squares() -> None:
    listed = ((64, 64), (96, 96), (64, 96), (96, 64))
    width = np.array([100], np.int32)
    drawn = {canvas_for(width, width, listed, np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {(64, 64), (96, 96)}


def test_no_picture_comes_twice_in_an_epoch_and_only_incomplete_batches_are_missing() -> None:
    width, height = sizes(1, 503)
    plan = AspectPlan(width, height, 8, XL)
    pools = [(width > height).sum(), (width < height).sum(), (width == height).sum()]
    assert plan.batches_of_epoch() == sum(pool // 8 for pool in pools)
    for epoch in range(3):
        first = epoch * plan.batches_of_epoch()
        seen = np.concatenate([plan.planned(first + n).pictures for n in range(plan.batches_of_epoch())])
        assert len(seen) == len(set(seen)) >= 503 - 3 * 7


def test_the_pictures_of_a_batch_lie_in_one_direction_and_are_alike() -> None:
    width, height = sizes(2, 4000)
    plan = AspectPlan(width, height, 4, XL)
    ratio = width / height
    spread = []
    for number in range(plan.batches_of_epoch()):
        chosen = ratio[plan.planned(number).pictures]
        assert (chosen > 1).all() or (chosen < 1).all() or (chosen == 1).all()
        spread.append(chosen.max() / chosen.min())
    # Blocks of 32 of 1600 sorted pictures span 2 % of the ratios; four of any pool would span far more.
    assert np.median(spread) < 1.03


def test_every_picture_covers_the_canvas_of_its_batch() -> None:
    width, height = sizes(3, 2000)
    plan = AspectPlan(width, height, 5, XL)
    for number in range(plan.batches_of_epoch()):
        batch = plan.planned(number)
        for w, h in zip(width[batch.pictures], height[batch.pictures], strict=True):
            scale = min(batch.size) / min(w, h)
            assert int(w * scale) >= batch.size[1] - 1 and int(h * scale) >= batch.size[0] - 1


def test_the_blocks_that_are_mixed_hold_eight_batches_of_sorted_pictures() -> None:
    count = 320
    width, height = np.arange(2000, 2000 + count, dtype=np.int32), np.full(count, 1000, np.int32)
    plan = AspectPlan(width, height, 4, XL)
    order = np.arange(count) // 32   # block of each picture: widths are sorted already
    for number in range(plan.batches_of_epoch()):
        assert len(set(order[plan.planned(number).pictures])) == 1


def test_another_epoch_has_another_order_and_the_same_one_is_always_the_same() -> None:
    width, height = sizes(4, 200)
    plan, again = AspectPlan(width, height, 4, XL), AspectPlan(width, height, 4, XL)
    count = plan.batches_of_epoch()
    first, second = ([plan.planned(epoch * count + n).pictures.tolist() for n in range(count)] for epoch in (0, 1))
    assert first != second
    # Asked for in the middle, as after a resume, and backwards.
    assert [again.planned(n).pictures.tolist() for n in reversed(range(count))] == first[::-1]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_take_turns_share_an_epoch_without_overlap(processes: int) -> None:
    width, height = sizes(5, 300)
    plan = AspectPlan(width, height, 4, XL)
    count = plan.batches_of_epoch()
    shares = [
        {int(p) for number in range(process, count, processes) for p in plan.planned(number).pictures}
        for process in range(processes)
    ]
    assert sum(map(len, shares)) == len(set().union(*shares)) == 4 * count


def test_in_a_shuffled_plan_every_batch_draws_its_canvas() -> None:
    width, height = sizes(6, 400)
    plan = ShuffledPlan(width, height, 2, SIZES_768)
    batches = [plan.planned(number) for number in range(plan.batches_of_epoch())]
    assert sorted(int(p) for batch in batches for p in batch.pictures) == list(range(400))
    drawn = Counter(batch.size for batch in batches)
    assert set(drawn) == set(SIZES_768)
    # The square is four of ten entries: 80 of 200 expected, standard deviation 6.9.
    assert 55 < drawn[768, 768] < 105


@pytest.mark.parametrize("kind", [AspectPlan, ShuffledPlan])
def test_repeated_pictures_fill_the_last_batch_so_that_none_is_left_out(kind: type) -> None:
    width, height = np.array([20, 20, 20, 10, 10], np.int32), np.array([10, 10, 10, 20, 10], np.int32)
    plan = kind(width, height, 4, XL, repeated=True)
    seen = [plan.planned(number).pictures for number in range(plan.batches_of_epoch())]
    assert {int(p) for pictures in seen for p in pictures} == set(range(5))
    assert {len(pictures) for pictures in seen} == {4}


def test_segments_bring_pictures_of_one_archive_together() -> None:
    width, height = sizes(7, 240)
    archive = (np.arange(240) % 9).astype(np.uint32)
    plan = SegmentPlan(width, height, archive, 6, XL, segment=3)
    batches = [plan.planned(number).pictures for number in range(plan.batches_of_epoch())]
    seen = [int(picture) for batch in batches for picture in batch]
    assert len(seen) == len(set(seen))
    for batch in batches:
        assert len(set(archive[batch[:3]])) == len(set(archive[batch[3:]])) == 1
        assert len(set(np.sign(width[batch] - height[batch]))) == 1
    # In each direction only what is left of each archive, and one segment that has no partner, is not seen.
    directions = np.sign(width - height)
    whole = [sum(((directions == d) & (archive == a)).sum() // 3 for a in range(9)) // 2 for d in (-1, 0, 1)]
    assert len(batches) == sum(whole)
