"""What an artifact says of itself: `manifest.json`, and the checks before anything is loaded.

    OUT/
    ├── manifest.json     this
    ├── kernels-….so      machine code; named by its content
    └── program.vm        the virtual machine's instructions, and the weights

An artifact is a program: opening one runs its code, as starting any program does. The checks
find what is damaged or for another machine; they don't make a stranger's artifact safe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tunebank.device import missing_features
from tunebank.errors import ArtifactError

SCHEMA_VERSION = 2
"""1 had one function with inputs and outputs of its own."""
MANIFEST_NAME = "manifest.json"
_CHUNK_BYTES = 1 << 20

_PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class _Entry(BaseModel):
    """Base of what a manifest is made of: values, and no keys but the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Entry):
    """Name, shape and data type (numpy's name) of an input or output.

    The extent of an output that depends on the data is None. `limit` is the exclusive upper
    bound of the legal values of an input of indices, None where there is none.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    limit: int | None = None

    @property
    def type(self) -> str:
        """The type as ONNX Runtime writes it, such as `tensor(float)`."""
        return f"tensor({_ONNX_NAMES.get(self.dtype, self.dtype)})"


class Part(_Entry):
    """A file of the artifact."""

    name: _PlainName
    sha256: str
    size_bytes: int = Field(ge=0)


class Versions(_Entry):
    """Versions of what made the artifact."""

    tunebank: str
    tvm: str
    tvm_ffi: str


class VerificationResult(_Entry):
    """Outcome of the comparison with ONNX Runtime.

    It tells nothing if it was not conclusive: outputs that don't follow the inputs agree anyway.
    """

    passed: bool
    conclusive: bool
    max_abs_error: float
    max_rel_error: float
    worst: str
    tolerance: float
    feeds: int


class Latency(_Entry):
    """Latency of the finished artifact on the machine that made it, milliseconds."""

    median: float
    p90: float


class Function(_Entry):
    """The model compiled for one set of input shapes.

    Attributes:
        name: of the function in the program.
        inputs: inputs in order; every extent is known.
        outputs: outputs in order.
        latency_ms: measured latency; None if it was not measured.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    latency_ms: Latency | None = None


class SearchSummary(_Entry):
    """What finding the schedules took."""

    budget_seconds: float
    search_seconds: float
    measured: int
    interrupted: bool


class KernelEntry(_Entry):
    """A kernel, and the schedule that it got; see `tunebank.search.Choice`.

    Attributes:
        symbol: what its program is called in the library.
        error_growth: how many times more than a plain sum its algorithm rounds.
        given_up: of each schedule that was chosen before and failed when the model was compiled,
            what went wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    symbol: str = ""
    error_growth: float = 1.0
    class_: str = Field(alias="class")
    weight: int
    gflop: float
    match: Literal["exact", "class", "anchor", "none"]
    source: str
    origin: str
    record_id: str
    untuned_us: float | None
    latency_us: float | None
    candidates: int
    measured: int
    invalid: int
    failed: int
    given_up: tuple[str, ...] = ()


class Manifest(_Entry):
    """What an artifact says of itself.

    Attributes:
        schema_version: version of this form.
        model: the model's name.
        model_path: the file that it was compiled from, as an absolute path.
        functions: the model for each set of input shapes; weights are shared.
        target: canonical JSON text of the TVM target.
        device: fingerprint of the machine that made it.
        cpu_features: CPU features that the code uses, as Linux names them.
        threads: threads that it was tuned for.
        versions: what made it.
        created_at: ISO 8601 time, UTC.
        library: the machine code.
        program: the instructions and the weights.
        verified: the comparison with ONNX Runtime; None if it was not made.
        search: what finding the schedules took.
        kernels: the kernels, heaviest first.
    """

    schema_version: Literal[2] = 2
    model: str
    model_path: str
    functions: tuple[Function, ...] = Field(min_length=1)
    target: str
    device: str
    cpu_features: tuple[str, ...]
    threads: int = Field(ge=1)
    versions: Versions
    created_at: str
    library: Part
    program: Part
    verified: VerificationResult | None
    search: SearchSummary
    kernels: tuple[KernelEntry, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Inputs in order; an extent that differs from function to function is None."""
        return tuple(map(_common, zip(*(one.inputs for one in self.functions), strict=True)))

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Outputs in order, likewise."""
        return tuple(map(_common, zip(*(one.outputs for one in self.functions), strict=True)))

    @property
    def latency_ms(self) -> Latency | None:
        """Latency of the first function."""
        return self.functions[0].latency_ms

    def function_for(self, shapes: Mapping[str, Sequence[int]]) -> Function | None:
        """The function whose inputs have these shapes, as far as they are given; None if none."""
        for function in self.functions:
            if all(
                tuple(shapes.get(spec.name, spec.shape)) == spec.shape for spec in function.inputs
            ):
                return function
        return None


def _common(tensors: tuple[Tensor, ...]) -> Tensor:
    """What several functions call by one name; what differs is left open."""
    first, *others = tensors
    if any(len(other.shape) != len(first.shape) for other in others):
        return first.model_copy(update={"shape": ()})
    extents = zip(*(tensor.shape for tensor in tensors), strict=True)
    shape = tuple(one[0] if len(set(one)) == 1 else None for one in extents)
    return first.model_copy(update={"shape": shape})


class _Versioned(BaseModel):
    schema_version: int


_ONNX_NAMES = {"float32": "float", "float64": "double"}


def is_artifact(folder: Path) -> bool:
    """Whether the folder says that it is an artifact, whole or not."""
    return (folder / MANIFEST_NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact.

    Raises:
        ArtifactError: not an artifact, damaged, or of another schema.
    """
    path = folder / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{folder}: not an artifact, no readable {MANIFEST_NAME}; `tunebank compile` makes one"
        ) from error
    try:
        version = _Versioned.model_validate_json(text).schema_version
        if version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{folder}: artifact of schema {version}, this tunebank reads {SCHEMA_VERSION}; "
                "upgrade tunebank"
            )
        if version < SCHEMA_VERSION:
            raise ArtifactError(
                f"{folder}: artifact of schema {version}, this tunebank reads {SCHEMA_VERSION}; "
                "compile the model again"
            )
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise ArtifactError(
            f"{path}: damaged at {where}: {first['msg']}; compile the model again"
        ) from error


def check_loadable(folder: Path, manifest: Manifest) -> None:
    """Checks that an artifact is whole, and for this machine and this TVM.

    Raises:
        ArtifactError: it is not; the message says why.
    """
    for part in (manifest.library, manifest.program):
        _check_part(folder, part)
    lacking = missing_features(manifest.cpu_features)
    if lacking:
        raise ArtifactError(
            f"{folder}: made for a CPU with {', '.join(lacking)}, which this one lacks; "
            "compile the model on this machine"
        )
    installed = _installed("apache-tvm")
    if installed != manifest.versions.tvm:
        raise ArtifactError(
            f"{folder}: made by TVM {manifest.versions.tvm}, installed is {installed or 'none'}; "
            f"compile the model again, or pip install apache-tvm=={manifest.versions.tvm}"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_part(folder: Path, part: Part) -> None:
    path = folder / part.name
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: {part.name} is missing or can't be read; compile the model again"
        ) from error
    if digest != part.sha256:
        raise ArtifactError(
            f"{folder}: {part.name} is not the file that the manifest names; "
            "copy the artifact again, or compile the model again"
        )


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
