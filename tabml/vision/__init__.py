"""Faces, meshes, hands, bodies and masks: a picture in, a typed result out, an annotated picture to look at."""

from __future__ import annotations

from tabml.vision.angles import JOINTS, angle, joint_angles
from tabml.vision.annotate import DEFAULT_STYLE, Style, annotate
from tabml.vision.faces import FaceDetector, FaceMesh, FaceMeshTracker
from tabml.vision.frame import DEFAULT_LIMITS, DecodeLimits, Frame, PixelFormat, RawFormat
from tabml.vision.hands import HandDetector, HandTracker
from tabml.vision.holistic import HolisticDetector, HolisticTracker
from tabml.vision.interactive import InteractiveSegmenter
from tabml.vision.irises import IrisDetector, IrisTracker
from tabml.vision.masks import HairSegmenter, Segmenter
from tabml.vision.objects import ObjectDetector, ObjectTracker
from tabml.vision.objects3d import ObjectDetector3D
from tabml.vision.pictures import ImageClassifier, ImageEmbedder
from tabml.vision.poses import PoseDetector, PoseTracker
from tabml.vision.results import (
    Box,
    Categories,
    Category,
    Eye,
    FaceDetection,
    FaceDetections,
    FaceIrises,
    FaceMeshes,
    FaceMeshResult,
    Hand,
    Hands,
    Holistic,
    Irises,
    Object3D,
    ObjectDetection,
    ObjectDetections,
    Objects3D,
    PictureEmbedding,
    Pose,
    Poses,
    Segmentation,
    TemplateMatch,
    TemplateMatches,
    TrackedObject,
    TrackedObjects,
)
from tabml.vision.templates import TemplateMatcher
from tabml.vision.video import VideoReader, VideoWriter, read_video

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_STYLE",
    "JOINTS",
    "Box",
    "Categories",
    "Category",
    "DecodeLimits",
    "Eye",
    "FaceDetection",
    "FaceDetections",
    "FaceDetector",
    "FaceIrises",
    "FaceMesh",
    "FaceMeshResult",
    "FaceMeshTracker",
    "FaceMeshes",
    "Frame",
    "HairSegmenter",
    "Hand",
    "HandDetector",
    "HandTracker",
    "Hands",
    "Holistic",
    "HolisticDetector",
    "HolisticTracker",
    "ImageClassifier",
    "ImageEmbedder",
    "InteractiveSegmenter",
    "IrisDetector",
    "IrisTracker",
    "Irises",
    "Object3D",
    "ObjectDetection",
    "ObjectDetections",
    "ObjectDetector",
    "ObjectDetector3D",
    "ObjectTracker",
    "Objects3D",
    "PictureEmbedding",
    "PixelFormat",
    "Pose",
    "PoseDetector",
    "PoseTracker",
    "Poses",
    "RawFormat",
    "Segmentation",
    "Segmenter",
    "Style",
    "TemplateMatch",
    "TemplateMatcher",
    "TemplateMatches",
    "TrackedObject",
    "TrackedObjects",
    "VideoReader",
    "VideoWriter",
    "angle",
    "annotate",
    "joint_angles",
    "read_video",
]
