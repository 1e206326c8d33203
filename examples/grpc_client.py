"""A client of the server: ``python examples/grpc_client.py [ADDRESS] [PICTURE]``.

Without an address it starts a server of its own, which goes when this program ends.
"""

import json
import subprocess
import sys
from pathlib import Path

import grpc

from tabml.cli.demo import portrait
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.ml.ml_inference_pb2_grpc import MediapipeServiceStub
from tabml_grpc.v1 import models_pb2, runtime_pb2, vision_pb2
from tabml_grpc.v1.models_pb2_grpc import ModelServiceStub
from tabml_grpc.v1.runtime_pb2_grpc import RuntimeServiceStub
from tabml_grpc.v1.vision_pb2_grpc import VisionServiceStub


def start() -> str:
    """A server of our own; its address."""
    command = [sys.executable, "-m", "tabml_grpc", "--port", "0", "--files", "catalog:"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    return json.loads(child.stdout.readline().removeprefix(b"TABML/1 READY "))["address"]


def main() -> None:
    """Load a model, look at a picture, stream it."""
    arguments = sys.argv[1:]
    own = not arguments or ":" not in arguments[0]
    address = start() if own else arguments.pop(0)
    picture = Path(arguments[0] if arguments else portrait()).read_bytes()

    with grpc.insecure_channel(address) as channel:
        for progress in ModelServiceStub(channel).LoadModel(models_pb2.LoadModelRequest(model_id="face_detector")):
            print(models_pb2.LoadPhase.Name(progress.phase), progress.bytes_done)

        tasks = [vision_pb2.TaskConfig(task=task) for task in ("VISION_TASK_FACE_DETECTION", "VISION_TASK_POSE")]
        request = vision_pb2.AnalyzeRequest(frame=vision_pb2.Frame(data=picture), tasks=tasks)
        analysis = VisionServiceStub(channel).Analyze(request).analysis
        print(f"{len(analysis.faces)} faces, {len(analysis.poses)} people")

        def camera():
            for number in range(30):
                options = {"opt.drop_policy": "block"} if number == 0 else {}
                yield ml.VideoFrame(frame_data=picture, timestamp_ms=33 * number, frame_number=number, metadata=options)

        for answer in MediapipeServiceStub(channel).StreamFaceMesh(camera()):
            print(answer.frame_number, len(answer.faces), f"{answer.stats.inference_ms:.1f} ms")

        if own:
            RuntimeServiceStub(channel).Drain(runtime_pb2.DrainRequest())


if __name__ == "__main__":
    main()
