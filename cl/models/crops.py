"""From an image to a model's pixels: its own preprocessing, and the random crops of training before it."""

from collections.abc import Callable

from jaxtyping import Float
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1

from cl.config import Augment


def pixels(settings: PreprocessCfg, augment: Augment = False) -> Callable[[Image.Image], Float[Tensor, "3 h w"]]:
    """Image to pixels as the settings have it, after a random crop where `augment` asks for one.

    True: open_clip's training crop, which never mirrors. It keeps 90 to 100 % of the area; an image longer than 4:3 gets the same
    central crop every time. "crop_and_mirror": VR-LwF's (arXiv:2207.09248), for 224 pixels a random crop of an image resized to
    256, mirrored half of the time.

    The crop is drawn from torch's global generator: a caller that wants it repeatable seeds that first.
    """
    own: Callable[[Image.Image], Tensor] = image_transform_v2(settings, is_train=augment is True)
    if augment != "crop_and_mirror":
        return own
    larger = [round(side * 8 / 7) for side in settings.input_size[1:]]
    shorter = larger[:1] if larger[0] == larger[1] else larger  # one number: the shorter side, proportions as they are
    crop = v1.RandomCrop(settings.input_size[1:])
    whole: Callable[[Image.Image], Tensor] = v1.Compose(
        [v1.Resize(shorter, v1.InterpolationMode.BICUBIC), crop, v1.RandomHorizontalFlip(), own]
    )
    return whole
