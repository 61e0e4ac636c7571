"""The repeated blocks of the network compiled: the same picture, few graphs, and never a frame lost for it.

Dynamo finds the graphs, and a backend of the tests counts them and runs them as they are: what a real compiler makes of
them takes minutes and differs from machine to machine.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from colorcli.model.attention import (
    Adapter,
    AttentionPlan,
    LayerRegion,
    LowRank,
    Region,
    Source,
    project,
    region_at,
)
from colorcli.model.compiled import COMPILE_SECONDS, GAIN, Regions, compile_pays
from colorcli.model.unet import BlockReads, ColorUNet, build_unet, transform, transformer_blocks
from tests.model.tiny import CONTEXT_DIM, call, normal, randomised

FRONT, BACK = normal(1, 6, CONTEXT_DIM, seed=2), normal(1, 6, CONTEXT_DIM, seed=3)
BOTH = torch.cat([FRONT, BACK], dim=1)


class Counting:
    """A compiler that runs every graph as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is known of another test's graphs, and the compiler's own log is not collected page by page."""
    torch._dynamo.reset()
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)
    yield
    torch._dynamo.reset()


@pytest.fixture
def net() -> ColorUNet:
    small = build_unet(
        block_out_channels=(32, 32), depths=(0, 1), layers_per_block=1, head_dim=16, context_dim=CONTEXT_DIM, y_dim=512
    )
    randomised(small)
    return small


def compiled(net: ColorUNet, backend: Any) -> ColorUNet:
    net.regions = Regions(backend)
    return net


def run(net: ColorUNet, plan: AttentionPlan | None = None, rows: int = 1) -> Tensor:
    return call(net, FRONT, plan or AttentionPlan(), rows)


@torch.inference_mode()
def test_compiled_blocks_paint_the_same_and_all_of_one_shape_share_a_graph(net):
    counting, guided = Counting(), AttentionPlan(seeing_rows=(0,))
    plain = run(net, guided, rows=2)
    torch.testing.assert_close(run(compiled(net, counting), guided, rows=2), plain, atol=0, rtol=0)
    assert net.regions is not None and net.regions.describe() == "on"
    # One for the 4 transformer blocks; residual blocks get maps of two sizes, 32 channels or 64, in two layouts.
    first = counting.graphs
    assert len(transformer_blocks(net)) == 4 and 1 < first <= 1 + 2 * 2 * 2
    run(net, guided, rows=2)
    assert counting.graphs == first   # the next step compiles nothing


def reads(layer: LayerRegion | None = None, bank: Source | None = None, **changes: Any) -> BlockReads:
    """What a block reads with a region, two rows of guidance and a bank."""
    plan = AttentionPlan(layer.region if layer is not None else None, seeing_rows=(0,))
    given = {"context": BOTH, "strength": 0.9, "adapter": None, "stored": None, "places": (), "plan": plan}
    return BlockReads(layers=(layer, layer), bank=bank, **(given | changes))


@torch.inference_mode()
def test_a_mask_for_every_frame_needs_no_graph_of_its_own(net):
    counting, block, x = Counting(), transformer_blocks(net)[0], normal(2, 96, 32, seed=5)
    regions = Regions(counting)
    bank = project(block.attn1, normal(1, 96, 32, seed=6))
    for seed in range(4):
        layer = region_at(Region((normal(1, 1, 8, 12, seed=seed) > 0).float(), 0.5), 8, 12)
        regions.sizes_vary(layer.indices)
        given = reads(layer, bank)
        torch.testing.assert_close(regions(transform, block, x, given), transform(block, x, given), atol=0, rtol=0)
    assert counting.graphs == 1 and regions.failure is None
    assert len({len(index) for index in layer.indices}) > 1


@torch.inference_mode()
def test_adapters_and_blended_regions_are_compiled_too(net):
    block, x = transformer_blocks(net)[0], normal(2, 96, 32, seed=5)
    adapter = Adapter(*(
        LowRank(normal(2, layer.in_features), 0.1 * normal(layer.out_features, 2, seed=1), 0.5)
        for layer in (block.attn2.to_q, block.attn2.to_k, block.attn2.to_v)
    ))
    layer = region_at(Region(normal(1, 1, 8, 12).sigmoid(), rule="soft", foreground=0.7), 8, 12)
    given, regions = reads(layer, adapter=adapter, context=BOTH), Regions(Counting())
    torch.testing.assert_close(regions(transform, block, x, given), transform(block, x, given), atol=0, rtol=0)
    assert regions.failure is None


@torch.inference_mode()
def test_weights_that_went_and_came_again_are_read_where_they_are_now(net):
    """As a memory profile moves them: the parameter stays, what it holds is another tensor."""
    counting, block, x = Counting(), transformer_blocks(net)[0], normal(2, 96, 32, seed=5)
    regions, given = Regions(counting), reads(context=FRONT)
    regions(transform, block, x, given)
    with torch.inference_mode(False):
        for weight in block.parameters():
            weight.data = 2 * weight.data
    torch.testing.assert_close(regions(transform, block, x, given), transform(block, x, given), atol=0, rtol=0)
    assert counting.graphs == 1


def broken(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no C++ compiler found")


def broken_late(graph: Any, inputs: Any) -> Any:
    """Compile something that fails when it is called, as kernels do where their library is missing."""

    def fail(*args: Any) -> Any:
        raise RuntimeError("no C++ compiler found")

    return fail


@pytest.mark.parametrize("backend", [broken, broken_late])
@torch.inference_mode()
def test_without_a_working_compiler_the_picture_comes_all_the_same_with_one_warning(net, caplog, backend):
    plain = run(net)
    compiled(net, backend)
    with caplog.at_level(logging.WARNING, "colorcli"):
        for _ in range(2):
            torch.testing.assert_close(run(net), plain, atol=0, rtol=0)
    (warning,) = (record.getMessage() for record in caplog.records if record.name.startswith("colorcli"))
    assert warning.startswith("the network cannot be compiled here") and "no C++ compiler found" in warning
    assert net.regions is not None and net.regions.describe().startswith("failed: ")


@torch.inference_mode()
def test_a_card_without_room_is_not_taken_for_a_broken_compiler(net):
    def full(graph: Any, inputs: Any) -> Any:
        def run_out(*args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_out

    compiled(net, full)
    with pytest.raises(torch.OutOfMemoryError):
        run(net)
    assert net.regions is not None and net.regions.failure is None


@torch.inference_mode()
def test_a_mistake_in_the_call_is_told_as_it_is(net):
    regions = Regions(Counting())
    with pytest.raises(RuntimeError, match="shape"):
        regions(transform, transformer_blocks(net)[0], normal(1, 5, 7), reads())
    assert regions.failure is None


@torch.inference_mode()
def test_the_few_frames_at_the_end_of_a_shot_are_not_compiled_for(net):
    counting, block = Counting(), transformer_blocks(net)[0]
    regions = Regions(counting)
    graphs = []
    for frames in (3, 2, 3):
        regions.begin(frames)
        regions(transform, block, normal(frames, 96, 32), reads(context=FRONT))
        graphs.append(counting.graphs)
    assert graphs == [1, 1, 1]
    regions.begin_anew()   # after memory ran out, two at once are the rule
    regions.begin(2)
    regions(transform, block, normal(2, 96, 32), reads(context=FRONT))
    assert counting.graphs == 2


def test_compiling_pays_on_a_card_when_more_is_saved_than_it_takes():
    rows = COMPILE_SECONDS / (GAIN * 0.02)   # of xl on its own canvas
    assert compile_pays("xl", "cuda", rows * 1.01, 1024 * 1024)
    assert not compile_pays("xl", "cuda", rows * 0.99, 1024 * 1024)
    assert compile_pays("xl", "cuda", rows / 2, 1536 * 1536)   # 2.25 times the pixels
    assert not compile_pays("mini", "cuda", 1e9, 1024 * 1024)
    assert not compile_pays("xl", "cpu", 1e9, 1024 * 1024)
