"""Draws the pictures of these pages: ``python docs/vision/gallery.py [FOLDER]``, by default over those that are there.

The photographs come with matplotlib and scikit-image and are in the public domain; of the test pictures, which are not, only
what the models found is drawn.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import skimage

from tabml.cli.demo import portrait
from tabml.vision import (
    FaceDetector,
    FaceMesh,
    Frame,
    HandDetector,
    HolisticDetector,
    ImageClassifier,
    InteractiveSegmenter,
    IrisDetector,
    ObjectDetector,
    ObjectDetector3D,
    ObjectTracker,
    PoseDetector,
    Segmenter,
    Style,
    TemplateMatcher,
    annotate,
)
from tabml.vision.effects import blur_background, cut_out, replace_background
from tabml.vision.reframing import AutoFlip

ROOT = Path(__file__).parents[2]
PICTURES = Path(os.environ.get("TABML_TEST_PICTURES", ROOT.parent / "shared" / "pictures"))
HEIGHT = 360
LARGE = Style(scale=1.3)


def photograph(name: str) -> Frame:
    """The portrait, or a picture of scikit-image."""
    if name == "portrait":
        return Frame.from_file(portrait())
    return Frame.from_file(Path(skimage.__file__).parent / "data" / f"{name}.png")


def beside(*frames: Frame) -> Frame:
    """Frames in a row, all of one height."""
    row = [frame.resize(round(frame.width * HEIGHT / frame.height), HEIGHT).to_rgb() for frame in frames]
    return Frame.from_array(np.hstack(row))


def empty(frame: Frame) -> Frame:
    """As large as the frame, and dark."""
    return Frame.from_array(np.full((frame.height, frame.width, 3), 30, np.uint8))


def faces() -> Frame:
    """Boxes and six points each."""
    frame = beside(photograph("portrait"), photograph("astronaut"))
    with FaceDetector(range="full") as detector:
        return annotate(frame, detector.detect(frame), style=LARGE)


def mesh() -> Frame:
    """Contours and irises."""
    frame = beside(photograph("portrait").crop(110, 60, 410, 360), photograph("astronaut").crop(130, 0, 330, 200))
    with FaceMesh(num_faces=2, range="full") as model:
        return annotate(frame, model.detect(frame), style=Style(mesh_points=True))


def irises() -> Frame:
    """Where somebody looks."""
    frame = photograph("portrait").crop(150, 130, 390, 350).resize(960, 880)
    with IrisDetector(focal_length_px=2400) as detector:
        return beside(annotate(frame, detector.detect(frame)))


def hands() -> Frame:
    """What was found in two test pictures, without them."""
    found = []
    with HandDetector() as detector:
        for name in ("hand_thumb_up.jpg", "hand_test_image.jpg"):
            frame = Frame.from_file(PICTURES / name)
            hands = detector.detect(frame)
            left, top, right, bottom = hands[0].box.to_pixels(frame.width, frame.height)
            drawn = annotate(empty(frame), hands, style=LARGE)
            found.append(drawn.crop(left - 60, top - 60, right + 60, bottom + 30))
    return beside(*found)


def pose() -> Frame:
    """A body with the angles of its joints, without its test picture, and one in its photograph."""
    body, frame = Frame.from_file(PICTURES / "pose_test_image.jpg"), photograph("portrait")
    with PoseDetector() as detector:
        drawn = annotate(empty(body), detector.detect(body), style=Style(angles=True, min_visibility=0.2))
        return beside(drawn, annotate(frame, detector.detect(frame)))


def holistic() -> Frame:
    """Face, hands and body of one person, without the test picture, and of one in her photograph."""
    body, frame = Frame.from_file(PICTURES / "pose_test_image.jpg"), photograph("portrait")
    with HolisticDetector() as detector:
        return beside(annotate(empty(body), detector.detect(body)), annotate(frame, detector.detect(frame)))


def objects() -> Frame:
    """Boxes with classes."""
    frames = []
    with ObjectDetector(score_threshold=0.4) as detector:
        for name in ("coffee", "chelsea", "portrait"):
            frame = photograph(name)
            frames.append(annotate(frame, detector.detect(frame), style=LARGE))
    return beside(*frames)


def cup() -> Frame:
    """A box in three dimensions."""
    frame = photograph("coffee")
    with ObjectDetector3D(category="cup", focal_length_px=600) as detector:
        return beside(annotate(frame, detector.detect(frame)))


def tracking() -> Frame:
    """Two that pass each other keep their numbers, and the way they came."""
    one = photograph("portrait").resize(150, 176).to_rgb()
    with ObjectTracker(score_threshold=0.4) as tracker:
        for step in range(24):
            pixels = np.full((HEIGHT, 640, 3), 200, np.uint8)
            pixels[10:186, 20 + 18 * step : 170 + 18 * step] = one
            pixels[184:360, 470 - 18 * step : 620 - 18 * step] = one[:, ::-1]
            frame = Frame.from_array(pixels, timestamp_ms=40 * step)
            found = tracker.track(frame)
    return annotate(frame, found)


def classes() -> Frame:
    """What a whole picture shows."""
    frame = photograph("chelsea")
    with ImageClassifier(max_results=3) as classifier:
        return beside(annotate(frame, classifier.classify(frame)))


def template() -> Frame:
    """A badge, found again in the picture made smaller and darker."""
    frame = photograph("portrait")
    badge, scene = frame.crop(75, 480, 175, 520), frame.resize(410, 480)
    scene = Frame.from_array((scene.to_rgb() * 0.7).astype(np.uint8))
    matcher = TemplateMatcher(badge, scales=(0.7, 0.8, 0.9, 1.0))
    plate = np.full((scene.height, 220, 3), 255, np.uint8)
    plate[100:180, 10:210] = badge.resize(200, 80).to_rgb()
    return beside(Frame.from_array(plate), annotate(scene, matcher.match(scene), style=LARGE))


def flip() -> Frame:
    """A wide frame, and what is left of it in a tall one."""
    still = photograph("astronaut").resize(HEIGHT, HEIGHT).to_rgb()
    wide = [
        Frame.from_array(np.hstack([np.full((HEIGHT, 280, 3), 90, np.uint8), still]), timestamp_ms=33 * n)
        for n in range(12)
    ]
    with AutoFlip("9:16", lookahead=12) as auto:
        tall = list(auto.flip_stream(wide))
    return beside(wide[0], Frame.from_array(np.full((HEIGHT, 12, 3), 255, np.uint8)), tall[-1])


def mask() -> Frame:
    """A person, and PASCAL's classes."""
    frames = []
    for name, model in (("portrait", "selfie_segmenter"), ("chelsea", "deeplab_v3")):
        frame = photograph(name)
        with Segmenter(model=model) as segmenter:
            frames.append(annotate(frame, segmenter.segment(frame)))
    return beside(*frames)


def pointing() -> Frame:
    """What is pointed at, by the tests' stand-in for MagicTouch, which goes by colour alone."""
    model = runpy.run_path(str(ROOT / "tests" / "recipes" / "pointing.py"))["pointing"]()
    frame, drawn = photograph("portrait"), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pointing.tflite")
        path.write_bytes(model)
        with InteractiveSegmenter(model=path) as segmenter:
            for place in ((0.35, 0.8), (0.9, 0.3)):
                drawn.append(annotate(frame, segmenter.segment(frame, keypoint=place), style=LARGE))
    return beside(*drawn)


def effects() -> Frame:
    """Blurred, before another background, and cut out."""
    frame = photograph("portrait")
    with Segmenter(size="model") as segmenter:
        person = segmenter.segment(frame)
    out = np.asarray(cut_out(frame, person).pixels, np.float32)
    squares = np.where((np.indices(out.shape[:2]) // 16).sum(axis=0)[:, :, None] % 2, 255, 210)
    weight = out[:, :, 3:] / 255
    on_squares = Frame.from_array((out[:, :, :3] * weight + squares * (1 - weight)).astype(np.uint8))
    return beside(blur_background(frame, person), replace_background(frame, person, (0, 177, 64)), on_squares)


DRAWINGS: dict[str, Callable[[], Frame]] = {
    each.__name__: each
    for each in (
        faces, mesh, irises, hands, pose, holistic, objects, cup, tracking, classes, template, flip, mask, pointing, effects,
    )
}  # fmt: skip


def draw(folder: Path) -> Iterator[Path]:
    """Each picture as a JPEG; the test pictures are needed for ``hands``."""
    for name, make in DRAWINGS.items():
        yield make().save(folder / f"{name}.jpg", quality=80)


if __name__ == "__main__":
    for written in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"):
        sys.stdout.write(f"{written}\n")
