"""A bare HTTP/2 client for one gRPC stream a connection, and a load of many cameras made of it.

A client library costs as much as the server it should measure: here a frame costs two system calls and no copy. Not
for anything else: no TLS, no trailers, no errors.

``python wire.py ADDRESS STREAMS FPS SECONDS PICTURE`` plays cameras and prints one line of JSON.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tabml_grpc import process
from tabml_grpc.ml import ml_inference_pb2 as ml

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _header(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value  # HPACK: literal, not indexed


class BareStream:
    """One bidirectional call."""

    def __init__(self, address: str, path: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = bytearray()
        self._part = bytearray()
        self._answers: list[bytes] = []
        self._windows = {0: 65535, 1: 65535}
        self._initial = 65535
        self._max_frame = 16384
        self._sending = threading.Lock()
        self._room = threading.Condition()
        headers = {
            b":method": b"POST", b":scheme": b"http", b":path": path.encode(), b":authority": b"localhost",
            b"te": b"trailers", b"content-type": b"application/grpc",
        }  # fmt: skip
        block = b"".join(_header(*each) for each in headers.items())
        settings = struct.pack(">HI", 4, 1 << 24)
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW, 0, 0, struct.pack(">I", 1 << 30))
            + _frame(_HEADERS, 4, 1, block)
        )

    def send(self, message: bytes, *, alone: bool = True) -> None:
        """One message; ``alone`` when no other thread receives."""
        left = memoryview(b"\0" + struct.pack(">I", len(message)) + message)
        while left:
            with self._room:
                size = min(self._windows[0], self._windows[1], self._max_frame, len(left))
                if size > 0:
                    for stream in self._windows:
                        self._windows[stream] -= size
                elif not alone:
                    self._room.wait(1)
                    continue
            if size <= 0:
                self._pump()
                continue
            with self._sending:
                self._socket.sendall(size.to_bytes(3, "big") + bytes([_DATA, 0, 0, 0, 0, 1]))
                self._socket.sendall(left[:size])
            left = left[size:]

    def receive(self) -> bytes:
        """The next message."""
        while not self._answers:
            self._pump()
        return self._answers.pop(0)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> BareStream:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _pump(self) -> None:
        while len(self._in) < 9 or len(self._in) < 9 + int.from_bytes(self._in[:3], "big"):
            more = self._socket.recv(1 << 18)
            if not more:
                raise EOFError
            self._in += more
        size, kind, flags = int.from_bytes(self._in[:3], "big"), self._in[3], self._in[4]
        stream, body = int.from_bytes(self._in[5:9], "big"), bytes(self._in[9 : 9 + size])
        del self._in[: 9 + size]
        if kind == _DATA:
            self._part += body
            while len(self._part) >= 5 and len(self._part) >= 5 + int.from_bytes(self._part[1:5], "big"):
                end = 5 + int.from_bytes(self._part[1:5], "big")
                self._answers.append(bytes(self._part[5:end]))
                del self._part[:end]
        elif kind == _SETTINGS and not flags & 1:
            with self._room:
                for name, value in struct.iter_unpack(">HI", body):
                    if name == 4:
                        self._windows[1] += value - self._initial
                        self._initial = value
                    elif name == 5:
                        self._max_frame = value
                self._room.notify_all()
            self._control(_frame(_SETTINGS, 1, 0, b""))
        elif kind == _WINDOW:
            with self._room:
                self._windows[1 if stream else 0] += int.from_bytes(body, "big")
                self._room.notify_all()
        elif kind == _PING and not flags & 1:
            self._control(_frame(_PING, 1, 0, body))
        elif kind in (_RST, _GOAWAY):
            raise EOFError(body)

    def _control(self, content: bytes) -> None:
        with self._sending:
            self._socket.sendall(content)


class _Camera:
    """Frames at a steady rate, and the age of each answer."""

    def __init__(self, address: str, picture: bytes, fps: float, offset: float, seconds: float) -> None:
        self.ages: list[float] = []
        self.sent = self.dropped = 0
        self.in_order = True
        self._stream = BareStream(address, "/ml.MediapipeService/StreamFaceDetection")
        self._tail = ml.VideoFrame(frame_data=picture, format="jpeg").SerializeToString()
        self._fps, self._offset, self._seconds = fps, offset, seconds
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._writer = threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        self._reader.start()
        self._writer.start()

    def join(self) -> None:
        self._writer.join()

    def _write(self) -> None:
        begin = time.monotonic() + self._offset
        for number in range(int(self._fps * self._seconds)):
            time.sleep(max(0.0, begin + number / self._fps - time.monotonic()))
            stamp = ml.VideoFrame(timestamp_ms=time.monotonic_ns() // 1000, frame_number=number).SerializeToString()
            self._stream.send(self._tail + stamp, alone=False)
            self.sent += 1

    def _read(self) -> None:
        last = -1
        try:
            while True:
                answer = ml.FaceDetectionResponse.FromString(self._stream.receive())
                self.ages.append((time.monotonic_ns() // 1000 - answer.timestamp_ms) / 1000)
                self.dropped += answer.stats.dropped
                self.in_order &= answer.frame_number > last
                last = answer.frame_number
        except (EOFError, OSError):
            return


def play(address: str, streams: int, fps: float, seconds: float, picture: bytes) -> dict[str, Any]:
    """Cameras in front of a server: offered, answered, ages in milliseconds."""
    cameras = [_Camera(address, picture, fps, n / streams / fps, seconds) for n in range(streams)]
    begin = time.monotonic()
    for camera in cameras:
        camera.start()
    for camera in cameras:
        camera.join()
    spent = time.monotonic() - begin
    ages = sorted(age for camera in cameras for age in camera.ages)
    return {
        "offered": sum(camera.sent for camera in cameras) / spent,
        "answered": len(ages) / spent,
        "p50": ages[len(ages) // 2],
        "p99": ages[int(len(ages) * 0.99)],
        "dropped": sum(camera.dropped for camera in cameras),
        "in_order": all(camera.in_order for camera in cameras),
        "fewest": min(len(camera.ages) for camera in cameras),
    }


if __name__ == "__main__":
    process.tune_allocator()
    address, streams, fps, seconds, name = sys.argv[1:]
    print(json.dumps(play(address, int(streams), float(fps), float(seconds), Path(name).read_bytes())))
