"""What a handler may keep of a batch is read from its source."""

from __future__ import annotations

import ast
import functools
import textwrap
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hatch_mar.model.base_handler import BaseHandler  # noqa: E402 - it needs torch
from hatch_mar.model.cuda.safety import find_obstacle, find_risk  # noqa: E402
from hatch_mar.model.cuda.writes import find_write  # noqa: E402
from hatch_mar.model.handlers.image_classifier import ImageClassifier  # noqa: E402
from hatch_mar.model.handlers.object_detector import ObjectDetector  # noqa: E402
from hatch_mar.model.handlers.text_classifier import TextClassifier  # noqa: E402
from hatch_mar.model.handlers.vision import VisionHandler  # noqa: E402
from hatch_mar.model.micro_batching import MicroBatching  # noqa: E402


def look_at(source: str) -> str | None:
    (tree,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(tree, ast.FunctionDef)
    return find_write(tree)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("self.sizes = []", "changes `self.sizes`"),
        ("self.count += 1", "changes `self.count`"),
        ("self.count: int = 1", "changes `self.count`"),
        ("self.sizes[0] = 1", "changes `self.sizes[0]`"),
        ("self.context.sizes = 1", "changes `self.context.sizes`"),
        ("del self.sizes", "changes `self.sizes`"),
        ("a, self.b = 1, 2", "changes `self.b`"),
        ("for self.row in data: pass", "changes `self.row`"),
        ("with open('x') as self.file: pass", "changes `self.file`"),
        ("self.sizes.append(1)", "changes `self.sizes`"),
        ("self.context.extras.update(a=1)", "changes `self.context.extras`"),
        ("sizes = self.sizes\n    sizes.append(1)", "changes `sizes`"),
        ("sizes = self.sizes\n    sizes[0] = 1", "changes `sizes[0]`"),
        ("[self.sizes.append(row) for row in data]", "changes `self.sizes`"),
        ("def inner():\n        self.x = 1\n    inner()", "changes `self.x`"),
        ("setattr(self, 'x', 1)", "gives `self` away"),
        ("remember(self)", "gives `self` away"),
        ("return dict(self.__dict__)", "uses `self.__dict__`"),
        ("global sizes\n    sizes = 1", "writes to the global 'sizes'"),
        ("self.buffer.copy_(data)", "changes `self.buffer`"),
        ("self.buffer[:2].fill_(0)", "changes `self.buffer[:2]`"),
        ("torch.add(data, 1, out=self.buffer)", "changes `self.buffer`"),
        ("heapq.heappush(self.heap, data)", "changes `self.heap`"),
        ("sizes: list = self.sizes\n    sizes.sort()", "changes `sizes`"),
        ("a, sizes = 1, self.sizes\n    sizes.sort()", "changes `sizes`"),
        ("sizes = self.sizes or []\n    sizes += [1]", "changes `sizes`"),
        ("for row in self.rows.values():\n        row['x'] = 1", "changes `row['x']`"),
        ("SEEN.append(data)", "changes `SEEN`"),
        ("SEEN['last'] = data", "changes `SEEN['last']`"),
        ("Handler.last = data", "changes `Handler.last`"),
    ],
)
def test_what_outlives_a_step_is_seen(body: str, said: str) -> None:
    assert look_at(f"def preprocess(self, data):\n    {body}\n") == said


@pytest.mark.parametrize(
    "body",
    [
        "return self.transform(data).to(self.device)",
        "rows = []\n    rows.append(self.read(data[0]))\n    return rows",
        "return super().preprocess(data)",
        "return super(Handler, self).preprocess(data)",
        "self.context.metrics.add_counter('n', 1)",
        "names = self.mapping\n    return [names[each] for each in data]",
        "return self.update(data)",
        "data.sizes = 1\n    data['x'] = 2",
    ],
)
def test_what_is_over_with_the_step_is_no_harm(body: str) -> None:
    assert look_at(f"def preprocess(self, data):\n    {body}\n") is None


@pytest.mark.parametrize(
    "kind", [BaseHandler, VisionHandler, ImageClassifier, ObjectDetector, TextClassifier]
)
def test_our_own_handlers_overlap(kind: type[BaseHandler]) -> None:
    assert find_risk(kind()) is None


class Plain(BaseHandler):
    """Keeps nothing."""

    def preprocess(self, data: Any) -> Any:
        return [self.read(row) for row in data]

    def read(self, row: Any) -> Any:
        return row["body"]


class Deep(Plain):
    """Keeps something in a method that its base's step calls."""

    def read(self, row: Any) -> Any:
        self.last = row
        return row


class Hidden(VisionHandler):
    """Keeps something in a method that a step of ours calls."""

    def _read_image(self, row: Any) -> Any:
        self.last = row
        return super()._read_image(row)


class Derived(VisionHandler):
    """Has a property and a static method on the way."""

    @property
    def size(self) -> int:
        self.asked = True
        return 3

    @staticmethod
    def crop(image: Any) -> Any:
        image.cropped = True
        return image

    def preprocess(self, data: Any) -> Any:
        return [self.crop(row)[: self.size] for row in data]


def test_methods_that_the_steps_call_are_read_too() -> None:
    assert find_risk(Plain()) is None
    assert find_risk(Deep()) == "`read` changes `self.last`"
    assert find_risk(Hidden()) == "`_read_image` changes `self.last`"
    assert find_risk(Derived()) == "`size` changes `self.asked`"


SEEN: list[Any] = []


def remember(row: Any) -> Any:
    SEEN.append(row)
    return row


def fill(buffer: Any, row: Any) -> Any:
    buffer.data[0] = row
    return buffer


def counted(function: Any) -> Any:
    calls: list[Any] = []

    @functools.wraps(function)
    def count(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    return count


class Telling(Plain):
    """Has a function keep something."""

    def read(self, row: Any) -> Any:
        return remember(row)


class Filling(Plain):
    """Gives something of its own to a function that changes it."""

    buffer: Any = None

    def read(self, row: Any) -> Any:
        return fill(self.buffer, row)


class Counting(Plain):
    """Is wrapped in what counts its calls."""

    @counted
    def read(self, row: Any) -> Any:
        return row


class Tracker:
    """Keeps the last row."""

    def note(self, row: Any) -> Any:
        self.last = row
        return row


class Tracking(Plain):
    """Has an object that keeps something."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()

    def read(self, row: Any) -> Any:
        return self.tracker.note(row)


class Defaulting(Plain):
    """Keeps something in a default."""

    def read(self, row: Any, seen: list[Any] = []) -> Any:  # noqa: B006 - that is the point
        seen.append(row)
        return row


class Calling(Plain):
    """Has a step that is an object."""

    preprocess = functools.partial(remember)


class Scale(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Keeps nothing of what goes through it."""

    def forward(self, row: Any) -> Any:
        return row * 2


class Computing(Plain):
    """Calls functions of modules that are named as methods that change something."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def read(self, row: Any) -> Any:
        rows = [torch.add(self.scale(row), 1)]
        rows.append(torch.nn.functional.relu_(rows[0]))
        return clean(rows)


def clean(rows: list[Any]) -> list[Any]:
    rows.pop()
    return rows


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Telling, "`remember` changes `SEEN`"),
        (Filling, "`fill` changes `buffer.data[0]`"),
        (Counting, "`read` changes `calls`"),
        (Tracking, "`note` changes `self.last`"),
        (Defaulting, "`read` changes `seen`"),
        (Calling, "its `preprocess` is no function"),
        (Computing, None),
    ],
)
def test_what_the_steps_call_is_read_too(kind: type[BaseHandler], said: str | None) -> None:
    assert find_risk(kind()) == said


def test_a_step_without_source_is_a_risk() -> None:
    namespace: dict[str, Any] = {}
    exec("def preprocess(self, data):\n    return data", namespace)
    kind = type("Made", (BaseHandler,), {"preprocess": namespace["preprocess"]})
    assert find_risk(kind()) == "the source of `preprocess` cannot be read"


def test_a_step_that_was_put_on_the_object_is_a_risk() -> None:
    handler = Plain()
    handler.postprocess = lambda data: data  # type: ignore[method-assign]
    assert find_risk(handler) == "its `postprocess` is not that of its class"


def test_micro_batching_is_left_alone() -> None:
    handler = Plain()
    handler.device = torch.device("cpu")
    assert find_obstacle(handler, {}) is None
    handler.handle = MicroBatching(handler)  # type: ignore[method-assign]
    assert find_obstacle(handler, {}) == "it has a `handle` of its own"


class Single(BaseHandler):
    """Wants to be the only one."""

    def __copy__(self) -> Any:
        raise TypeError("there is only one of me")


def test_a_handler_that_cannot_be_copied_is_left_alone() -> None:
    handler = Single()
    handler.device = torch.device("cpu")
    said = "it cannot be copied: TypeError: there is only one of me"
    assert find_obstacle(handler, {}) == said
