"""The bill of materials in a wheel (PEP 770, CycloneDX 1.6)."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING, Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.support.builds import only, wheel_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import Celsius, ProjectMaker


def bill_of(wheel: Path) -> dict[str, Any]:
    """Return the one bill of `wheel`, which is valid and whose references all lead somewhere."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if ".dist-info/sboms/" in name]
        text = archive.read(name).decode()
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert errors is None
    bill: dict[str, Any] = json.loads(text)
    refs = [each["bom-ref"] for each in (bill["metadata"]["component"], *bill["components"])]
    assert len(refs) == len(set(refs))
    named = {ref for each in bill["dependencies"] for ref in (each["ref"], *each["dependsOn"])}
    assert named == set(refs)
    return bill


def components(bill: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in bill["components"] if each["type"] == kind}


def test_it_names_every_file_of_the_model_with_its_digest(sample_wheel: Path) -> None:
    files = components(bill_of(sample_wheel), "file")
    model = {name for name in wheel_names(sample_wheel) if name.startswith("digits_mar/model/")}
    assert set(files) == model - {"digits_mar/model/MAR-INF/SEAL.json"}
    with zipfile.ZipFile(sample_wheel) as archive:
        for name, component in files.items():
            digest = hashlib.sha256(archive.read(name)).hexdigest()
            assert component["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_it_says_what_the_model_is(sample_wheel: Path) -> None:
    bill = bill_of(sample_wheel)
    (model,) = components(bill, "machine-learning-model").values()
    assert (model["name"], model["version"]) == ("digits", "1.0.0")
    facts = {each["name"]: each["value"] for each in model["properties"]}
    assert facts == {"hatch-mar:runtime": "eager", "hatch-mar:handler": "handler:handler"}
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/digits@1.0.0"


def test_it_lists_what_the_wheel_and_the_model_require(
    build: Build, make_project: ProjectMaker
) -> None:
    mar = """
        handler = "handler.py:handle"
        requirements = ["numpy==1.26.4", "Pillow>=10 ; python_version > '3'"]
    """
    project = make_project(mar=mar)
    build(project)
    bill = bill_of(only(project / "dist", "*.whl"))
    libraries = components(bill, "library")
    assert set(libraries) == {"hatch-mar", "numpy", "pillow"}
    assert (libraries["numpy"]["version"], libraries["numpy"]["purl"]) == (
        "1.26.4",
        "pkg:pypi/numpy@1.26.4",
    )
    assert "version" not in libraries["pillow"]
    needs = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert needs["wheel"] == ["model", "requirement:hatch-mar[serve]"]
    assert [ref for ref in needs["model"] if ref.startswith("requirement:")] == [
        libraries["numpy"]["bom-ref"],
        libraries["pillow"]["bom-ref"],
    ]


def test_it_names_weights_that_are_elsewhere(build: Build, celsius: Celsius) -> None:
    build(celsius.project)
    files = components(bill_of(only(celsius.project / "dist", "*.whl")), "file")
    weights = files["celsius.pt"]
    digest = hashlib.sha256(celsius.weights).hexdigest()
    assert weights["hashes"] == [{"alg": "SHA-256", "content": digest}]
    (reference,) = weights["externalReferences"]
    assert reference["type"] == "distribution"
    assert reference["url"].endswith("/celsius.pt")
    assert celsius.requests == []


def test_it_has_no_time_of_its_own(build: Build, shout: Path) -> None:
    build(shout)
    bill = bill_of(only(shout / "dist", "*.whl"))
    assert "timestamp" not in bill["metadata"]
    assert "serialNumber" not in bill


def test_it_has_the_time_that_was_asked_for(build: Build, shout: Path) -> None:
    build(shout, SOURCE_DATE_EPOCH="1700000000")
    bill = bill_of(only(shout / "dist", "*.whl"))
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_a_licence_and_a_description_are_in_it(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar='handler = "handler.py:handle"\ndescription = "grüßt"')
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text().replace("[project]", '[project]\nlicense = "MIT"')
    pyproject.write_text(text)
    build(project)
    bill = bill_of(only(project / "dist", "*.whl"))
    assert bill["metadata"]["component"]["licenses"] == [{"expression": "MIT"}]
    (model,) = components(bill, "machine-learning-model").values()
    assert model["description"] == "grüßt"


def test_names_and_addresses_may_be_odd(build: Build, make_project: ProjectMaker) -> None:
    weights = (
        f'weights = {{ source = "https://models.example/a b/ü.bin", sha256 = "{"0" * 64}", '
        'mirrors = ["file:///srv/a b.bin"], target = "ü w.bin" }'
    )
    mar = f'handler = "handler.py:handle"\nextra-files = ["größe 1/*"]\n{weights}'
    project = make_project(mar=mar, files={"größe 1/wört 1.txt": "x"})
    build(project)
    files = components(bill_of(only(project / "dist", "*.whl")), "file")
    assert "demo_mar/model/größe 1/wört 1.txt" in files
    urls = [each["url"] for each in files["ü w.bin"]["externalReferences"]]
    assert urls == ["https://models.example/a%20b/%C3%BC.bin", "file:///srv/a%20b.bin"]


def test_it_stands_beside_the_authors_own(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(files={"mine.cdx.json": "{}"})
    with (project / "pyproject.toml").open("a") as file:
        file.write('\n[tool.hatch.build.targets.wheel]\nsbom-files = ["mine.cdx.json"]\n')
    build(project)
    names = wheel_names(only(project / "dist", "*.whl"))
    assert {name.rpartition("/")[2] for name in names if "/sboms/" in name} == {
        "demo_mar.cdx.json",
        "mine.cdx.json",
    }


def test_an_editable_wheel_has_none(build: Build, shout: Path) -> None:
    build(shout, "wheel:editable")
    assert not [name for name in wheel_names(only(shout / "dist", "*.whl")) if "sboms" in name]
