import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from cl.errors import DataError
from cl.streams.avalanche import from_avalanche, to_avalanche
from cl.streams.stream import joint
from tests.make import COLOURS, RGB, stream

NAMES = ["red", "green", "blue", "yellow"]


class Squares(Dataset):
    """Four colours, `each` images of a colour; images as PIL, or as what `form` makes of them."""

    def __init__(self, each, form=lambda image: image):
        self.targets = [colour for colour in range(4) for _ in range(each)]
        self.form = form

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        red, green, blue = RGB[self.targets[row]]
        return self.form(Image.new("RGB", (4, 4), (red, green, (blue + row) % 256))), self.targets[row]


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def incremental(form=lambda image: image):
    from avalanche.benchmarks import class_incremental_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset

    parts = {"train": as_classification_dataset(Squares(5, form)), "test": as_classification_dataset(Squares(2, form))}
    return class_incremental_benchmark(parts, class_order=[2, 0, 3, 1], num_experiences=2)


def test_class_incremental_experiences_become_sessions_whose_indices_follow_arrival():
    made = from_avalanche(incremental(), NAMES, ["a {} square"])
    first, second = made.sessions
    assert set(first.data.labels) == {"blue", "red"} and set(second.data.labels) == {"yellow", "green"}
    assert first.classes == (0, 1) and second.classes == (2, 3)
    assert second.vocabulary[:2] == first.vocabulary and {c.name for c in second.vocabulary} == set(NAMES)
    assert [len(s.data) for s in made.sessions] == [10, 10] and [len(s.tests[0].data) for s in made.sessions] == [4, 4]
    assert set(second.tests[0].data.labels) == {"yellow", "green"}
    assert first.vocabulary[0].prompts == (f"a {first.vocabulary[0].name} square",)


@pytest.mark.parametrize("form", [lambda image: image, tensor, lambda image: tensor(image).float() / 255], ids=["pil", "uint8", "float"])
def test_pixels_survive_whatever_form_the_benchmark_has_them_in(form):
    data = from_avalanche(incremental(form), NAMES).sessions[0].data
    for row, label in enumerate(data.labels):
        red, green, _ = RGB[NAMES.index(label)]
        assert data.image(row).getpixel((0, 0))[:2] == (red, green)


def test_new_instances_are_examined_with_the_one_test_there_is():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    train = as_classification_dataset(Squares(4))
    halves = [train.subset(range(0, 16, 2)), train.subset(range(1, 16, 2))]
    made = from_avalanche(benchmark_from_datasets(train=halves, test=[as_classification_dataset(Squares(2))]), NAMES)
    assert [s.classes for s in made.sessions] == [(0, 1, 2, 3)] * 2
    assert [len(s.tests[0].data) for s in made.sessions] == [8, 8] and [e.name for e in made.exam(0)] == ["experience 1", "experience 2"]


def test_augmentation_of_training_images_is_not_stored():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset, TransformGroups, as_classification_dataset

    def bare(image, *_):
        return image

    def black(image, *_):
        return Image.new("RGB", image.size)

    groups = TransformGroups({"train": (black, None), "eval": (bare, None)})
    train: AvalancheDataset = as_classification_dataset(Squares(2), transform_groups=groups)
    made = from_avalanche(benchmark_from_datasets(train=[train], test=[as_classification_dataset(Squares(1))]), NAMES)
    assert made.sessions[0].data.image(0).getpixel((0, 0)) != (0, 0, 0)


@pytest.mark.parametrize(
    ("form", "names", "message"),
    [
        (lambda image: image, NAMES[:2], "target 2 has no name; names are given for 2 targets"),
        (lambda image: tensor(image).float() / 128 - 1, NAMES, r"values from .* expected \[0, 1\], so leave out Normalize"),
        (lambda image: np.zeros(3), NAMES, r"ndarray \(3,\); expected a PIL image or a tensor"),
        (lambda image: torch.zeros(5, 4, 4), NAMES, "Tensor .*expected a PIL image or a tensor of 1 or 3 channels"),
    ],
)
def test_a_benchmark_that_cannot_be_stored_says_why(form, names, message):
    with pytest.raises(DataError, match=message):
        from_avalanche(incremental(form), names)


def test_our_sessions_are_experiences_with_vocabulary_indices_as_targets():
    made = stream([0, 1], [2, 0])
    benchmark = to_avalanche(made)
    train, test = benchmark.train_stream, benchmark.test_stream
    assert [sorted(e.classes_in_this_experience) for e in train] == [[0, 1], [0, 2]]
    assert [sorted(e.classes_seen_so_far) for e in train] == [[0, 1], [0, 1, 2]]
    for split, tables in ((train, [s.data for s in made.sessions]), (test, [s.tests[0].data for s in made.sessions])):
        for experience, data in zip(split, tables, strict=True):
            assert [COLOURS[target] for target in experience.dataset.targets] == data.labels
            image, target, task = experience.dataset[3]
            assert torch.equal(image, tensor(data.image(3)).float() / 255) and COLOURS[target] == data.labels[3] and task == 0


def test_there_and_back_keeps_rows_labels_and_indices():
    made = stream([2, 1], [3], [2, 0])
    again = from_avalanche(to_avalanche(made), [c.name for c in made.sessions[-1].vocabulary], ["a {} square"])
    for before, after in zip(made.sessions, again.sessions, strict=True):
        assert after.data.labels == before.data.labels and after.vocabulary == before.vocabulary and after.classes == before.classes
        assert all(after.data.image(row).tobytes() == before.data.image(row).tobytes() for row in range(len(before.data)))
        assert after.tests[0].data.labels == before.tests[0].data.labels and after.tests[0].classes == before.tests[0].classes


def test_several_tests_of_a_joint_session_become_one():
    benchmark = to_avalanche(joint(stream([0, 1], [2])))
    assert [sorted(e.dataset.targets.uniques) for e in benchmark.test_stream] == [[0, 1, 2]]


@pytest.mark.parametrize("name", ["Naive", "Replay", "LwF"])
def test_strategies_of_avalanche_learn_our_stream(name):
    from avalanche import training

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    knobs = {"Naive": {}, "Replay": {"mem_size": 8}, "LwF": {"alpha": 1.0, "temperature": 2.0}}[name]
    strategy = getattr(training, name)(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=20,
        device="cpu",
        evaluator=None,
        **knobs,
    )
    made = stream([0, 1], [2, 3])
    benchmark = to_avalanche(made)

    def accuracy(experience):
        images, targets = zip(*((x, y) for x, y, _ in experience.dataset), strict=True)
        return (model.eval()(torch.stack(images)).argmax(1) == torch.tensor(targets)).float().mean().item()

    first, second = benchmark.test_stream
    strategy.train(benchmark.train_stream[0])
    assert accuracy(first) == 1.0 and accuracy(second) == 0.0
    strategy.train(benchmark.train_stream[1])
    assert accuracy(second) == 1.0


def test_sessions_that_no_strategy_of_avalanche_could_use_are_refused():
    made = stream([0, 1], [2])
    bare = replace(made.sessions[0], data=made.sessions[0].data.without("label"))
    with pytest.raises(DataError, match="session 'session 1': has training images without a label"):
        to_avalanche(replace(made, sessions=(bare, *made.sessions[1:])))
    captioned = replace(made.sessions[0], tests=(replace(made.sessions[0].tests[0], kind="retrieve", classes=()),))
    with pytest.raises(DataError, match="is examined by retrieval"):
        to_avalanche(replace(made, sessions=(captioned, *made.sessions[1:])))


def test_numbers_of_experiences_must_fit():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    sets = [as_classification_dataset(Squares(1)) for _ in range(3)]
    with pytest.raises(DataError, match="3 training and 2 test experiences"):
        from_avalanche(benchmark_from_datasets(train=sets, test=sets[:2]), NAMES)
