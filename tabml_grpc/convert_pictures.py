"""Classes and vectors of whole pictures, between messages and values."""

from __future__ import annotations

from tabml.vision.results import Categories, Category, PictureEmbedding
from tabml_grpc.arrays import packed, table
from tabml_grpc.v1 import vision_pb2 as v1


def categories_to_v1(result: Categories) -> v1.ClassifyImageResponse:
    """Classes, the likeliest first."""
    return v1.ClassifyImageResponse(categories=[v1.Category(**each.to_dict()) for each in result])


def categories_from_v1(message: v1.ClassifyImageResponse, width: int, height: int) -> Categories:
    """Classes of a picture of ``width`` by ``height``."""
    items = tuple(Category(label=each.label, score=each.score, index=each.index) for each in message.categories)
    return Categories(items=items, width=width, height=height)


def embedding_to_v1(result: PictureEmbedding) -> v1.EmbedImageResponse:
    """A vector."""
    return v1.EmbedImageResponse.FromString(packed(1, result.vector))


def embedding_from_v1(message: v1.EmbedImageResponse, width: int, height: int) -> PictureEmbedding:
    """The vector of a picture of ``width`` by ``height``."""
    return PictureEmbedding(vector=table(message.embedding, 1)[:, 0], width=width, height=height)
