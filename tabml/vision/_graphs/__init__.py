"""MediaPipe's own graphs for faces, hands and bodies, run on LiteRT: the same answers with every core.

MediaPipe's tasks run each model on one thread, and nothing from outside changes that. Here the same models run
on as many threads as asked for, and what stands between them (regions, decoding, projection, smoothing) is
numpy and OpenCV. The constants are those of MediaPipe 1.2's public graphs; ``tests/vision`` holds the answers
to MediaPipe's own.
"""
