"""Faces and a pose in a photograph, drawn into it: ``python examples/quickstart.py [PICTURE]``."""

import sys

from tabml.cli.demo import portrait
from tabml.vision import FaceDetector, Frame, PoseDetector, annotate

frame = Frame.from_file(sys.argv[1] if len(sys.argv) > 1 else portrait())
with FaceDetector() as detector, PoseDetector() as poses:
    faces, people = detector.detect(frame), poses.detect(frame)

print(faces)
for person in people:
    print(person, {joint: round(angle) for joint, angle in person.angles().items() if angle is not None})
print(annotate(frame, faces, people).save("quickstart.png"))
