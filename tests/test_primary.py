"""Long-CLIP's second contrast: to the published numbers, with the sentence of the caption that was drawn."""

from dataclasses import replace

import pytest
import torch

from cl.data.table import ImageTable
from cl.methods.compose import RecipeConfig
from cl.methods.features import pixels
from cl.methods.losses import contrastive
from cl.methods.recipe import plain_batch
from cl.methods.terms.primary import components, projected
from tests import make


def unit(n: int, d: int, offset: int = 0) -> torch.Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.nn.functional.normalize(torch.sin(7 * i + 3 * j + i * j + offset), dim=1)


def test_contrast_with_main_components_is_the_published_one_and_with_all_of_them_the_plain_one() -> None:
    images, texts = unit(6, 8), unit(6, 8, 1)
    for count, expected in ((2, 1.045087889148), (5, 2.156712818214)):
        loss = contrastive(projected(images, *components(images, count)), texts, 1 / 0.07, smoothing=0.1)
        assert loss.item() == pytest.approx(expected, abs=1e-10)
    assert contrastive(images, texts, 1 / 0.07, smoothing=0.1).item() == pytest.approx(2.156712818214, abs=1e-10)
    space = components(images, 2)  # which gets no gradient: equal images have none through a decomposition
    free = [each.clone().requires_grad_() for each in (images, texts)]
    assert torch.autograd.gradcheck(lambda a, b: contrastive(projected(a, *space), b, 5.0, smoothing=0.1), free)
    twice = images[[0, 0, 1, 1]].requires_grad_()
    loss = contrastive(projected(twice, *(each.detach() for each in components(twice, 2))), texts[:4], 1 / 0.07)
    assert torch.autograd.grad(loss, twice)[0].isfinite().all()


def test_images_are_held_to_the_first_sentence_of_the_caption_that_was_drawn() -> None:
    session = make.session(1, (0, 1), (0, 1), captions=True, labels=False)
    told = [["a red thing. It is small. Very.", "no sentence at all"][row % 2 :] for row in range(len(session.data))]
    data = ImageTable.of(session.data.ids, session.data.table["image"].to_pylist(), None, told)
    session = replace(session, data=data)
    terms = ({"kind": "clip"}, {"kind": "primary", "components": 3, "weight": 2.0})
    method = RecipeConfig(terms=terms).build(make.tiny().double(), 0).double()
    table = method.begin(session)
    assert method.lesson is not None
    batch = plain_batch(method.clip, table.take(range(6)), method.lesson, range(6))
    second = method.clip.tokenize(["no sentence at all"])[0]
    batch.texts[0, : len(second)], batch.texts[0, len(second) :] = second, 0  # the first row was drawn with its other caption
    loss = method.losses(batch)["primary"]
    words = ["no sentence at all", "no sentence at all", "a red thing", "no sentence at all", "a red thing", "no sentence at all"]
    with torch.no_grad():
        every, texts = (torch.cat([*pixels(method.clip, data)]), method.clip.tokenize(words))
        features = method.clip.encode_image(every)
        images = projected(features[:6], *components(features, 3))
        same = torch.tensor([[one == other for other in words] for one in words])
        expected = 2 * contrastive(images, method.clip.encode_text(texts), method.clip.scale(), same, 0.1)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert RecipeConfig(terms=terms).wants() == ("captions",)
