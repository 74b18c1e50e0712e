"""A learned CLIP as an MLflow model: this file is its code, an open_clip local directory its weights; nothing is pickled."""

import base64
import io
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image


class ServedClip(PythonModel):
    """Scores images against texts. It needs open_clip alone, so that it can be served where Evergreen is not installed."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights (safetensors) that were stored beside this file."""
        name = f"local-dir:{context.artifacts['clip']}"
        self.clip, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.tokenize = open_clip.get_tokenizer(name)
        self.clip.eval()

    @torch.no_grad()
    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[list[float]]:
        """One list of probabilities per row, in the order of its `texts`; `image` is a base64 string of an encoded image."""
        return [self._scores(row.image, list(row.texts)) for row in model_input.itertuples()]

    def _scores(self, image: str, texts: list[str]) -> list[float]:
        pixels = self.preprocess(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"))[None]
        images = self.clip.encode_image(pixels, normalize=True)
        features = self.clip.encode_text(self.tokenize(texts), normalize=True)
        logits = self.clip.logit_scale.exp() * images @ features.T
        return [float(value) for value in np.asarray(logits.softmax(-1)[0])]


set_model(ServedClip())
