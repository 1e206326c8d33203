"""What the vision models answer: frozen values over read-only float32 arrays.

Coordinates called *normalised* are fractions of the picture: x of its width, y of its height, both
growing right and down from the top left corner, 0 to 1 inside the picture (landmarks may lie
outside). ``left`` and ``right`` are always the person's own.
"""

from __future__ import annotations

from tabml.vision.results.faces import FaceDetection, FaceDetections, FaceMeshes, FaceMeshResult
from tabml.vision.results.found import Box, Float32, Found
from tabml.vision.results.hands import Hand, Hands
from tabml.vision.results.holistic import Holistic
from tabml.vision.results.irises import Eye, FaceIrises, Irises
from tabml.vision.results.masks import Segmentation
from tabml.vision.results.objects import ObjectDetection, ObjectDetections, TrackedObject, TrackedObjects
from tabml.vision.results.objects3d import Object3D, Objects3D
from tabml.vision.results.pictures import Categories, Category, PictureEmbedding
from tabml.vision.results.poses import Pose, Poses
from tabml.vision.results.templates import TemplateMatch, TemplateMatches

__all__ = [
    "Box",
    "Categories",
    "Category",
    "Eye",
    "FaceDetection",
    "FaceDetections",
    "FaceIrises",
    "FaceMeshResult",
    "FaceMeshes",
    "Float32",
    "Found",
    "Hand",
    "Hands",
    "Holistic",
    "Irises",
    "Object3D",
    "ObjectDetection",
    "ObjectDetections",
    "Objects3D",
    "PictureEmbedding",
    "Pose",
    "Poses",
    "Segmentation",
    "TemplateMatch",
    "TemplateMatches",
    "TrackedObject",
    "TrackedObjects",
]
