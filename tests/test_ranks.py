"""Several ranks compute what one does: each term and preset, over batches of which one rank has only labels and one only captions."""

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from cl.config import TrainConfig
from cl.data.table import ImageTable, concat
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Order, Rows
from cl.learning.ranks import Rank
from cl.methods import CONFIGS, Batch, MethodConfig, gather
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.lesson import equal
from cl.methods.losses import contrastive
from cl.methods.recipe import Recipe
from cl.methods.terms import AnyTerm
from cl.methods.view import View
from cl.streams.stream import Session
from tests import make
from tests.golden.numbers import _perturb

KINDS = {config.model_fields["kind"].default: config for config in get_args(get_args(AnyTerm)[0])}
SMALL = {"vocabulary": {"texts": 6}, "anchor": {"texts": 6}, "counterfactual": {"wrong": "words"}, "alip": {"second": "label"}}
LATER = ("hold", "stored", "anchor")  # which hold nothing in the first session
# which rows of eight have labels, captions or both; the first rank has the first half
BATCHES = {"apart": "LLLLCCCC", "mixed": "LBCLCBLC", "uneven": "LLLCC", "one": "C"}
CAPTIONS = "CCCCCCCC"
# every term over the hardest batch, and every batch under what all others share; the other pairs take three times as long
PAIRS = [(kind, name) for kind in KINDS for name in BATCHES if name == "apart" or kind in ("clip", "infoloob", "siglip", "alip")]
PRESETS = {f"preset {name}": config for name, config in CONFIGS.items() if issubclass(config, PresetConfig)}
CHEAP = {"texts": 6, "strategy": "none"}  # for presets that have such a setting
OTHERS = [(kind, name) for kind in KINDS for name in BATCHES if (kind, name) not in PAIRS]
WHOLE = [(preset, name) for preset in PRESETS for name in ("apart", "mixed")]


def session() -> Session:
    made = make.session(1, (0, 1, 2), (0, 1, 2), each=4)
    # the second caption comes twice, a rank apart, and is shorter than the others
    texts = [["a long and winding caption"] if row % 3 else ["twice"] for row in range(len(made.data))]
    table = made.data
    return replace(made, data=ImageTable.of(table.ids, table.table["image"].to_pylist(), table.labels, texts))


def rows(kinds: str) -> ImageTable:
    data = session().data
    cut = {"L": lambda one: one.without("captions"), "C": lambda one: one.without("label"), "B": lambda one: one}
    return concat([cut[kind](data.take([row])) for row, kind in enumerate(kinds)])


def configured(kind: str) -> MethodConfig:
    if kind in PRESETS:
        return PRESETS[kind](**{name: value for name, value in CHEAP.items() if name in PRESETS[kind].model_fields})
    config = KINDS[kind](**SMALL.get(kind, {}))
    terms = (config,) if kind == "clip" else (KINDS["clip"](), config)
    memory = {"kind": "reservoir", "capacity": 6, "store": "features"} if kind == "stored" else None
    return RecipeConfig(terms=terms, memory=memory)


def built(kind: str) -> Recipe:
    method = configured(kind).build(make.tiny().double(), 0).double()
    assert isinstance(method, Recipe)
    method.begin(session())
    if kind in LATER or kind in PRESETS:
        with torch.no_grad():
            method.end(session())
        method.begin(session())
    _perturb(method)
    return method


def gradients(method: Recipe, batch: Batch) -> dict[str, Tensor]:
    losses = method.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    slopes = {f"gradient/{name}": torch.zeros_like(each) if each.grad is None else each.grad for name, each in method.named_parameters()}
    return {f"loss/{name}": value.detach() for name, value in losses.items()} | slopes


def part(method: Recipe, table: ImageTable, rank: int, ranks: int) -> Batch:
    (own,) = Order(len(table), len(table), 1, 0, rank=rank, ranks=ranks)
    data = Rows(table, method.clip, method.vocabulary, beside=method.beside)
    return Collate(method.clip.tokenize, method.clip.dtype, method.beside)([data[address] for address in own])


def ranked(rank: int, ranks: int, port: int, folder: str, pairs: list[tuple[str, str]]) -> None:
    """What one rank finds, its gradients averaged as data parallelism does; the first one writes all down."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    tensors: dict[str, Tensor] = {}
    for kind, name in pairs:
        method = built(kind)
        each = gradients(method, part(method, rows(BATCHES[name]), rank, ranks))
        for tensor in (value for key, value in each.items() if key.startswith("gradient/")):
            dist.all_reduce(tensor)
            tensor.div_(ranks)
        tensors |= {f"{kind}/{name}/{key}": value.contiguous() for key, value in each.items()}
    real, gather.features = gather.features, _without_gradient  # as open_clip gathers by default
    method = built("clip")
    each = gradients(method, part(method, rows(CAPTIONS), rank, ranks))
    for tensor in (value for key, value in each.items() if key.startswith("gradient/")):
        dist.all_reduce(tensor)
        tensor.div_(ranks)
    gather.features = real
    tensors |= {f"wrong/{key}": value.contiguous() for key, value in each.items()}
    if not rank:
        write_tensors(tensors, Path(folder) / "ranked.safetensors")
    dist.destroy_process_group()


def _without_gradient(own: Tensor, sizes: list[int]) -> Tensor:
    every = [torch.empty_like(own) for _ in sizes]
    dist.all_gather(every, own.detach().contiguous())
    every[dist.get_rank()] = own
    return torch.cat(every)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return together(tmp_path_factory.mktemp("ranks"), PAIRS)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return together(tmp_path_factory.mktemp("ranks"), OTHERS)


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return together(tmp_path_factory.mktemp("ranks"), WHOLE)


def together(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=ranked, args=(rank, 2, port, str(folder), pairs), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(300)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    return read_tensors(folder / "ranked.safetensors")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_two_ranks_compute_what_one_does(kind: str, name: str, two: dict[str, Tensor], one_thread: None) -> None:
    same(kind, name, two)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), OTHERS)
def test_two_ranks_compute_what_one_does_over_every_batch(kind: str, name: str, others: dict[str, Tensor], one_thread: None) -> None:
    same(kind, name, others)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "name"), WHOLE)
def test_two_ranks_compute_what_one_does_of_every_preset(preset: str, name: str, presets: dict[str, Tensor], one_thread: None) -> None:
    same(preset, name, presets)


def same(kind: str, name: str, two: dict[str, Tensor]) -> None:
    method = built(kind)
    alone = gradients(method, part(method, rows(BATCHES[name]), 0, 1))
    both = {key.removeprefix(f"{kind}/{name}/"): value for key, value in two.items() if key.startswith(f"{kind}/{name}/")}
    assert both.keys() == alone.keys()
    for key, value in alone.items():
        bound = 1e-12 if key.startswith("loss/") else 1e-10
        assert torch.allclose(both[key], value, rtol=bound, atol=bound), (key, float((both[key] - value).abs().max()))
    moved = max(float(value.abs().max()) for key, value in alone.items() if key.startswith("gradient/"))
    assert name == "one" or (moved > 0 and (kind in PRESETS or alone["gradient/clip.model.logit_scale"].abs() > 0))


def test_a_gather_without_gradient_is_found_out(two: dict[str, Tensor], one_thread: None) -> None:
    method = built("clip")
    alone = gradients(method, part(method, rows(CAPTIONS), 0, 1))
    key = "gradient/clip.model.visual.conv1.weight"
    assert torch.allclose(two["wrong/loss/contrast"], alone["loss/contrast"], rtol=1e-12)
    assert not torch.allclose(two[f"wrong/{key}"], alone[key], rtol=0.1)


@pytest.mark.parametrize(("kind", "chunk"), [*((kind, 3) for kind in KINDS), ("clip", 1), ("clip", 100)])
def test_chunks_compute_what_the_whole_does(kind: str, chunk: int, one_thread: None) -> None:
    whole = built(kind)
    batch = part(whole, rows(BATCHES["mixed"]), 0, 1)
    cut = built(kind)
    cut.chunk = chunk
    for (key, want), (other, got) in zip(gradients(whole, batch).items(), gradients(cut, batch).items(), strict=True):
        assert key == other and torch.allclose(got, want, rtol=1e-10, atol=1e-12), key


def test_chunks_compute_what_the_whole_does_over_lora(one_thread: None) -> None:
    made = []
    for chunk in (None, 3):
        method = RecipeConfig.model_validate({"tune": "lora", "terms": ["clip", {"kind": "vocabulary", "texts": 6}]}).build(
            make.tiny().double(), 0
        )
        method.double()
        for name, weight in method.named_parameters():
            weight.requires_grad_(name.startswith("tuner."))
        method.begin(session())
        _perturb(method)
        method.chunk = chunk
        made.append(gradients(method, part(method, rows(BATCHES["mixed"]), 0, 1)))
    for (key, want), got in zip(made[0].items(), made[1].values(), strict=True):
        assert torch.allclose(got, want, rtol=1e-10, atol=1e-12), key
    assert any(value.abs().sum() > 0 for key, value in made[0].items() if key.startswith("gradient/tuner."))


def test_a_chunk_keeps_the_activations_of_few_images(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    method = built("clip")
    sizes: list[int] = []
    real = method.tuner.image
    monkeypatch.setattr(method.tuner, "image", lambda pixels: sizes.append(len(pixels)) or real(pixels))
    method.chunk = 3
    gradients(method, part(method, rows(BATCHES["mixed"]), 0, 1))
    assert sizes == [3, 3, 2, 2, 3, 3]  # forward, and again on the way back, the last first
    view = View(part(method, rows("LL"), 0, 1), method.lesson, method.tuner, 0, chunk=1)  # type: ignore[arg-type]
    with torch.no_grad():
        assert len(view.images) == 2


def test_accumulating_is_not_a_large_batch(one_thread: None) -> None:
    whole, halves = built("clip"), built("clip")
    table = rows(CAPTIONS)
    want = gradients(whole, part(whole, table, 0, 1))
    for half in (table.take(range(4)), table.take(range(4, 8))):
        gradients(halves, part(halves, half, 0, 1))
    name = "clip.model.visual.conv1.weight"
    got = dict(halves.named_parameters())[name].grad / 2  # type: ignore[operator]
    assert not torch.allclose(got, want[f"gradient/{name}"], rtol=0.1)


def test_a_loss_made_anew_for_each_part_has_the_encoders_gradient_and_that_of_the_scale_as_often(one_thread: None) -> None:
    whole, parts = built("clip"), built("clip")
    batch = part(whole, rows(CAPTIONS), 0, 1)
    want = gradients(whole, batch)
    with torch.no_grad():
        images, texts = parts.clip.encode_image(batch.images), parts.clip.encode_text(batch.texts)
    for own in (range(4), range(4, 8)):  # open_clip's accum-freq: features of the others are kept, the scale is not
        mine = torch.tensor([row in own for row in range(8)])[:, None]
        fresh_images = torch.where(mine, parts.clip.encode_image(batch.images), images)
        fresh_texts = torch.where(mine, parts.clip.encode_text(batch.texts), texts)
        contrastive(fresh_images, fresh_texts, parts.clip.scale(), equal(batch.texts)).backward()
    got = {f"gradient/{name}": weight.grad for name, weight in parts.named_parameters()}
    for name in ("gradient/clip.model.visual.conv1.weight", "gradient/clip.model.text_projection"):
        assert torch.allclose(got[name], want[name], rtol=1e-10, atol=1e-12)  # type: ignore[arg-type]
    scale = "gradient/clip.model.logit_scale"
    assert torch.allclose(got[scale], 2 * want[scale], rtol=1e-10) and want[scale].abs() > 1e-6  # type: ignore[arg-type]


def test_an_order_is_cut_among_ranks_and_lost_by_none() -> None:
    whole = list(Order(10, 7, 4, 3, drop_last=False))
    parts = [list(Order(10, 7, 4, 3, drop_last=False, rank=rank, ranks=3)) for rank in range(3)]
    for step, addresses in enumerate(whole):
        assert [each for part in parts for each in part[step] if each[0] >= 0] == addresses
    assert [len(each) for each in list(Order(1, 4, 2, 0, rank=0, ranks=2))] == [1, 1]  # a rank without a row stands by


@pytest.mark.parametrize(
    ("method", "train", "says"),
    [
        ({"name": "finetune"}, {"devices": 9, "batch_size": 8}, "train.batch_size: 8 is fewer rows than ranks"),
        ({"name": "ridge"}, {"devices": 2}, "takes its steps whole"),
        ({"name": "ridge"}, {"chunk": 2}, "train.chunk: 2, and Ridge takes its steps whole"),
    ],
)
def test_what_ranks_and_chunks_cannot_do_is_refused(method: dict[str, Any], train: dict[str, Any], says: str) -> None:
    made = CONFIGS[method["name"]](**method).build(make.tiny(), 0)
    with pytest.raises(MethodError, match=says):
        learn(made, make.session(1, (0, 1), (0, 1)), TrainConfig(device="cpu", **train), 0)


def test_the_first_rank_writes() -> None:
    assert Rank(0, 2, 1).first and not Rank(1, 2, 1).first


KILLED = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from cl.config import TrainConfig
from cl.learning.interim import Interim
from cl.learning.learner import learn
from cl.disk.tensors import write_tensors
from cl.methods import CONFIGS
from tests import make
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    method = CONFIGS["vr_lwf"](texts=6).build(make.tiny(), 0)
    train = TrainConfig(max_steps=int(sys.argv[3]), batch_size=8, lr=1e-3, device="cpu", devices=2)
    write = Interim.write
    Interim.write = lambda *kept: (write(*kept), print("step", flush=True))
    learn(method, make.session(1, (0, 1), (0, 1)), train, 0, interim=Interim(folder / "interim", 1e-6))
    write_tensors({name: value.contiguous() for name, value in method.state_dict().items()}, folder / "learned.safetensors")
"""


def _learn_apart(folder: Path, kill_after: int | None = None) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    (folder / "learn.py").write_text(KILLED)
    command = [sys.executable, str(folder / "learn.py"), str(Path(__file__).parents[1]), str(folder), "12"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as started:
        assert started.stdout is not None
        others: list[psutil.Process] = []
        for steps, _ in enumerate(started.stdout, start=1):
            if steps == kill_after:
                others = psutil.Process(started.pid).children(recursive=True)
                started.kill()
                break
        started.wait(300)
    _, alive = psutil.wait_procs(others, timeout=60)
    assert not alive, "a rank outlives the first one"
    return read_tensors(folder / "learned.safetensors") if kill_after is None else {}


@pytest.mark.slow
def test_ranks_that_are_killed_go_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = _learn_apart(tmp_path / "whole")
    for steps in (3, 4):
        _learn_apart(tmp_path / "killed", steps)
        assert (tmp_path / "killed" / "interim" / "cursor.json").exists()
    again = _learn_apart(tmp_path / "killed")
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)
