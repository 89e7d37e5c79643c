"""Events of TensorBoard, without TensorFlow or generated code: the few fields that a run writes."""

import io
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from jaxtyping import UInt8
from PIL import Image

START = 1
"""`SessionLog.status` of a run that starts; TensorBoard then hides earlier events from this step on."""
_DT_STRING = 7
_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, list[tuple[int, str, int | str]]] = {
    "Event": [
        (1, "wall_time", _FIELD.TYPE_DOUBLE),
        (2, "step", _FIELD.TYPE_INT64),
        (3, "what.file_version", _FIELD.TYPE_STRING),
        (5, "what.summary", "Summary"),
        (7, "what.session_log", "SessionLog"),
    ],
    "SessionLog": [(1, "status", _FIELD.TYPE_INT32)],
    "Summary": [(1, "value*", "Value")],
    "Value": [
        (1, "tag", _FIELD.TYPE_STRING),
        (2, "value.simple_value", _FIELD.TYPE_FLOAT),
        (4, "value.image", "Image"),
        (8, "value.tensor", "Tensor"),
        (9, "metadata", "Metadata"),
    ],
    "Image": [
        (1, "height", _FIELD.TYPE_INT32),
        (2, "width", _FIELD.TYPE_INT32),
        (3, "colorspace", _FIELD.TYPE_INT32),
        (4, "encoded_image_string", _FIELD.TYPE_BYTES),
    ],
    "Metadata": [(1, "plugin_data", "PluginData")],
    "PluginData": [(1, "plugin_name", _FIELD.TYPE_STRING)],
    "Tensor": [(1, "dtype", _FIELD.TYPE_INT32), (2, "tensor_shape", "Shape"), (8, "string_val*", _FIELD.TYPE_BYTES)],
    "Shape": [(2, "dim*", "Dim")],
    "Dim": [(1, "size", _FIELD.TYPE_INT64)],
}
"""Fields by message: number, name and type, a scalar or another message. `A.B` is the member B of the oneof A, and `B*`
is repeated. Numbers and types are TensorFlow's; an enumeration is stored like an int32."""


def _event_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tensorboard", syntax="proto3")
    for name, fields in _MESSAGES.items():
        kind = file.message_type.add(name=name)
        for number, field_name, of in fields:
            oneof, _, own_name = field_name.rpartition(".")
            label = _FIELD.LABEL_REPEATED if own_name.endswith("*") else _FIELD.LABEL_OPTIONAL
            field = kind.field.add(name=own_name.rstrip("*"), number=number, label=label)
            if isinstance(of, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".tensorboard.{of}"
            else:
                field.type = of
            if oneof:  # all members of a message's only one
                if not kind.oneof_decl:
                    kind.oneof_decl.add(name=oneof)
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorboard.Event"))


Event = _event_class()
"""The protobuf message `tensorflow.Event`."""


def scalar(tag: str, value: float) -> dict[str, Any]:
    """Return a value of a summary: a number."""
    return {"tag": tag, "simple_value": value}


def image(tag: str, pixels: UInt8[np.ndarray, "H W 3"]) -> dict[str, Any]:
    """Return a value of a summary: an image, as a PNG."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    height, width, channels = pixels.shape
    sizes = {"height": height, "width": width, "colorspace": channels}
    return {"tag": tag, "image": {**sizes, "encoded_image_string": encoded.getvalue()}}


def text(tag: str, content: str) -> dict[str, Any]:
    """Return a value of a summary: a text."""
    tensor = {"dtype": _DT_STRING, "tensor_shape": {"dim": [{"size": 1}]}, "string_val": [content.encode()]}
    return {"tag": f"{tag}/text_summary", "metadata": {"plugin_data": {"plugin_name": "text"}}, "tensor": tensor}
