"""A new project: every file of it, decided before one is written.

From a checkpoint, whose kind says which handler it needs, or from nothing.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.project.document import PYPROJECT
from hatch_mar.project.draft import (
    FIRST_VERSION,
    Draft,
    Line,
    Value,
    base_dependencies,
    draft_name,
    merge_dependencies,
    weights_line,
)
from hatch_mar.project.founding import templates
from hatch_mar.project.founding.checkpoint import NAMES, SUFFIXES, Checkpoint, read_checkpoint
from hatch_mar.project.founding.colours import COLOURS, QUESTION, make_weights, name_colour
from hatch_mar.project.founding.companions import find_companions
from hatch_mar.project.founding.handler_text import (
    factory_handler,
    fill,
    render,
    whole_model_handler,
)
from hatch_mar.project.founding.networks import Network, read_networks
from hatch_mar.project.handler import DEFAULT_HANDLERS
from hatch_mar.project.source import SourceError, find_flaw_of_module
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from hatch_mar.project.founding.newfiles import Source

FOLDER = "weights"
OPTIONAL = ("README.md", ".gitignore")
"""What a directory may have already; the project does as well with that."""
ARCHITECTURES = ("state_dict", "safetensors")
"""Kinds of checkpoint that are nothing without a model file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What `hatch-mar init` was told."""

    name: str
    root: Path
    weights: Path | None = None
    model_file: Path | None = None
    model_class: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    handler: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """A project that can be written."""

    draft: Draft
    files: Mapping[str, Source]
    """Its files by their paths, pyproject.toml among them."""
    found: str
    """What the checkpoint turned out to be, for a person."""


def found_project(wish: Wish) -> Foundation:
    """Decide the files of the project that `wish` describes.

    Raises:
        ProblemsError: everything that stands in the way.
    """
    return _Founder(wish).found()


@dataclass(slots=True)
class _Founder:
    wish: Wish
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, Source] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    extras: list[Value] = field(default_factory=list)
    dependencies: list[str] = field(default_factory=list)

    def found(self) -> Foundation:
        wish = self.wish
        self._check_name()
        if wish.weights is None and wish.model_file is None and wish.handler is None:
            return self._colours()
        checkpoint = self._checkpoint()
        network = self._network()
        if not self.problems:
            self._check_together(checkpoint, network)
        if self.problems:
            raise ProblemsError(self.problems)
        self._place_handler(checkpoint, network)
        self._place_weights(checkpoint)
        if self.extras:
            self.lines.append(Line("extra-files", self.extras))
        self.files["README.md"] = fill(templates.README, name=wish.name, example=".")
        return self._finish(_describe(wish, checkpoint, network))

    def _check_name(self) -> None:
        project, served, _ = draft_name(self.wish.name)
        if project != self.wish.name:
            hint = f"; did you mean '{project}'?" if project and project != served else ""
            self._complain(
                "NAME",
                f"'{self.wish.name}' cannot be the name of a package that is served; it must begin "
                "with a letter, end with a letter or digit, and hold only letters, digits, '_', "
                f"'.' and '-'{hint or f'; did you mean {project!r}?'}",
            )

    def _complain(self, key: str, message: str) -> None:
        self.problems.append(Problem("", key, message))

    def _checkpoint(self) -> Checkpoint | None:
        path = self.wish.weights
        if path is None:
            return None
        try:
            return read_checkpoint(path)
        except ValueError as error:
            self._complain("--weights", f"'{path}' {error}")
        except OSError as error:
            self._complain("--weights", f"'{path}' cannot be read: {error.strerror or error}")
        return None

    def _network(self) -> Network | None:
        wish = self.wish
        if wish.model_file is None:
            for key, given in (
                ("--model-class", wish.model_class),
                ("--model-arg", wish.model_args),
            ):
                if given:
                    self._complain(key, "needs --model-file")
            return None
        path = wish.model_file
        flaw = find_flaw_of_module(path.stem) if path.suffix == ".py" else "is not a Python file"
        if flaw is not None:
            self._complain("--model-file", f"'{path}' {flaw}")
            return None
        try:
            networks = read_networks(path.read_bytes())
        except SourceError as error:
            self._complain("--model-file", f"'{path}' is not Python: {error}")
            return None
        except OSError as error:
            self._complain("--model-file", f"'{path}' cannot be read: {error.strerror or error}")
            return None
        network = self._choose(networks)
        if network is not None:
            self._check_arguments(network)
        return network

    def _choose(self, networks: tuple[Network, ...]) -> Network | None:
        path, wanted = self.wish.model_file, self.wish.model_class
        names = [network.name for network in networks]
        if wanted is not None:
            found = next((network for network in networks if network.name == wanted), None)
            if found is None:
                hint = did_you_mean(wanted, names)
                self._complain("--model-class", f"'{path}' has no network '{wanted}'{hint}")
            return found
        if len(networks) == 1:
            return networks[0]
        if networks:
            message = f"'{path}' has {len(names)} networks ({', '.join(names)}); name one"
            self._complain("--model-class", message)
        else:
            message = f"'{path}' has no subclass of torch.nn.Module at its top level"
            self._complain("--model-file", message)
        return None

    def _check_arguments(self, network: Network) -> None:
        given = self.wish.model_args
        missing = [name for name in network.required if name not in given]
        if missing:
            example = " ".join(f"--model-arg {name}=VALUE" for name in missing)
            message = f"{network.name}({', '.join(network.required)}) cannot be made; add {example}"
            self._complain("--model-arg", message)
        for name in given:
            if name not in network.accepted and not network.open_ended:
                hint = did_you_mean(name, network.accepted)
                self._complain("--model-arg", f"{network.name} takes no '{name}'{hint}")

    def _check_together(self, checkpoint: Checkpoint | None, network: Network | None) -> None:
        wish = self.wish
        if checkpoint is not None and checkpoint.kind in ARCHITECTURES:
            if network is None and (wish.handler is None or wish.handler in DEFAULT_HANDLERS):
                listed = ", ".join(map(render, checkpoint.tensors[:3]))
                more = len(checkpoint.tensors) - 3
                self._complain(
                    "--model-file",
                    f"is required: '{wish.weights}' holds weights alone ({listed}"
                    f"{f' and {more} more' if more > 0 else ''}), and not the network they are of",
                )
        elif checkpoint is not None and network is not None:
            self._complain(
                "--model-file",
                f"has no use beside '{wish.weights}', which is {NAMES[checkpoint.kind]} and holds "
                "the whole model",
            )
        unsayable = [name for name, value in wish.model_args.items() if not _is_toml(value)]
        for name in unsayable if wish.handler is not None else ():
            self._complain("--model-arg", f"{name}: TOML cannot say null; leave it to a default")
        if wish.handler in DEFAULT_HANDLERS and checkpoint is None and network is None:
            self._complain("--weights", f"is required: {wish.handler} loads a model by itself")

    def _place_handler(self, checkpoint: Checkpoint | None, network: Network | None) -> None:
        wish = self.wish
        if wish.handler is not None:
            self._given_handler(wish.handler, network)
        elif network is not None:
            self._factory_handler(checkpoint, network)
        elif checkpoint is not None:
            self.lines.append(Line("handler", "handler.py"))
            self.files["handler.py"] = whole_model_handler(checkpoint)

    def _given_handler(self, text: str, network: Network | None) -> None:
        if text in DEFAULT_HANDLERS:
            self.lines.append(Line("handler", text))
        else:
            target, colon, function = text.partition(":")
            place = self._bring(Path(target), "")
            self._bring_companions(Path(target))
            self.lines.append(Line("handler", f"{place}{colon}{function}"))
        if network is None or self.wish.model_file is None:
            return
        self.lines.append(Line("model-file", self._bring(self.wish.model_file, "")))
        self._bring_companions(self.wish.model_file)
        self.lines.append(Line("model-class", network.name))
        if self.wish.model_args:
            self.lines.append(Line("model-args", dict(self.wish.model_args)))

    def _factory_handler(self, checkpoint: Checkpoint | None, network: Network) -> None:
        path = self.wish.model_file
        assert path is not None
        place = self._bring(path, "")
        self.extras.append(place)
        self._bring_companions(path)
        self.lines.append(Line("handler", "handler.py"))
        self.files["handler.py"] = factory_handler(
            checkpoint,
            module=place.removesuffix(".py").replace("/", "."),
            network=network.name,
            arguments=self.wish.model_args,
        )

    def _place_weights(self, checkpoint: Checkpoint | None) -> None:
        path = self.wish.weights
        if path is None or checkpoint is None:
            self.dependencies += base_dependencies(None)
            return
        suffixes = SUFFIXES[checkpoint.kind]
        suffix = path.suffix.lower() if path.suffix.lower() in suffixes else suffixes[0]
        place = self._bring(path, FOLDER, name=f"{path.stem}{suffix}")
        line = weights_line(place, path.stat().st_size)
        if PurePosixPath(place).suffix.lower() != suffix:
            target = f"{path.stem}{suffix}"
            table = {"source": place, "target": target}
            extra = line.value if isinstance(line.value, Mapping) else {}
            line = Line("weights", {**extra, **table}, f"by its suffix a server knows {suffix}")
        self.lines.append(line)
        if checkpoint.kind in ("aoti", "tensorrt", "engine"):
            name = "tensorrt" if checkpoint.kind == "engine" else checkpoint.kind
            self.lines.append(Line("runtime", name))
        self._place_companions(path, place, checkpoint.companions)
        self.dependencies += base_dependencies(f"x{suffix}")
        if checkpoint.kind == "onnx":  # what its handler imports, and TorchServe's needs
            self.dependencies += ["numpy", "onnxruntime"]

    def _place_companions(self, path: Path, place: str, names: tuple[str, ...]) -> None:
        """Bring the files that an ONNX model's weights are in: beside it, here and there."""
        for name in names:
            source = posixpath.join(posixpath.dirname(place), name)
            if source not in self._inside(path.parent / name):
                self.files[source] = path.parent / name
            self.extras.append({"from": source, "to": name})

    def _bring(self, path: Path, folder: str, *, name: str = "") -> str:
        """Return where `path` is in the project; it is copied there unless it is inside already."""
        inside = self._inside(path)
        if inside:
            return inside[0]
        place = posixpath.join(folder, name or path.name)
        self.files[place] = path
        return place

    def _bring_companions(self, path: Path) -> None:
        """Bring the modules that a file imports from beside it, where they are not here already."""
        if self._inside(path) and path.resolve().parent != self.wish.root.resolve():
            return  # it has a place of its own in the project, and so have they
        model_file = self.wish.model_file
        named = [model_file.resolve()] if model_file is not None else []
        for name, companion in find_companions(path).items():
            if companion.resolve() not in named:
                if not self._inside(companion):
                    self.files[name] = companion
                top = name.partition("/")[0]
                if top not in self.extras:
                    self.extras.append(top)

    def _inside(self, path: Path) -> list[str]:
        """Return the path below the project's directory, as one element; none if it is outside."""
        resolved, root = path.resolve(), self.wish.root.resolve()
        return [resolved.relative_to(root).as_posix()] if resolved.is_relative_to(root) else []

    def _colours(self) -> Foundation:
        if self.problems:
            raise ProblemsError(self.problems)
        question, answer = "examples/orange.json", "examples/orange.answer.json"
        weights = f"{FOLDER}/colours.safetensors"
        reply = json.dumps(name_colour(QUESTION), indent=2)
        name = self.wish.name
        self.files |= {
            "README.md": fill(
                templates.README,
                name=name,
                example=fill(templates.COLOURS_EXAMPLE, name=name, answer=reply),
            ),
            "handler.py": fill(
                templates.COLOURS_HANDLER,
                names="\n".join(f'    "{colour}",' for colour in COLOURS),
            ),
            "model.py": templates.COLOURS_MODEL,
            weights: make_weights(),
            question: f"{json.dumps(QUESTION)}\n",
            answer: f"{reply}\n",
            "tests/test_handler.py": fill(
                templates.COLOURS_TEST, weights=weights, question=question, answer=answer
            ),
        }
        self.dependencies += base_dependencies(weights)
        self.lines += [
            Line("handler", "handler.py"),
            Line("weights", weights),
            Line("extra-files", ["model.py"], "what the handler imports"),
            Line(
                "examples",
                [{"input": question, "output": answer, "rtol": 0.001}],
                "a model that answers otherwise does not become ready",
            ),
        ]
        return self._finish("a small model that names colours", tail=templates.COLOURS_TAIL)

    def _finish(self, found: str, *, tail: str = "") -> Foundation:
        self.files[".gitignore"] = templates.IGNORED
        draft = Draft(
            project=self.wish.name,
            served=self.wish.name,
            version=FIRST_VERSION,
            readme="README.md",
            dependencies=merge_dependencies(self.dependencies),
            lines=tuple(self.lines),
            tail=tail,
        )
        self.files = {PYPROJECT: draft.to_toml(), **self.files}
        files = {
            name: source
            for name, source in self.files.items()
            if name not in OPTIONAL or not (self.wish.root / name).exists()
        }
        return Foundation(draft=draft, files=files, found=found)


def _is_toml(value: Any) -> bool:  # noqa: ANN401 - what JSON can say
    if isinstance(value, list | dict):
        return all(map(_is_toml, value.values() if isinstance(value, dict) else value))
    return value is not None


def _describe(wish: Wish, checkpoint: Checkpoint | None, network: Network | None) -> str:
    parts = []
    if checkpoint is not None and wish.weights is not None:
        numbers = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors)
        size = f" of {len(checkpoint.tensors)} tensors, {numbers} numbers" if numbers else ""
        parts.append(f"{wish.weights.name} is {NAMES[checkpoint.kind]}{size}")
    if network is not None and wish.model_file is not None:
        parts.append(f"{wish.model_file.name} has the network {network.name}")
    return "; ".join(parts) or "a handler of your own"
