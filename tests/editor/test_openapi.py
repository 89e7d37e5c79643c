"""Requests of all kinds, generated from the server's own OpenAPI, are answered in time as declared there."""

import contextlib

import httpx2
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    status_code_conformance,
)

from elements_jax.pipeline.session import EditSession
from tests.editor.conftest import DELETE, SMALL_LIMITS, app_of, script, served, upload

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
]
SECONDS = 20


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the server's thread does, meanwhile
def test_every_request_is_answered_as_declared(editing: EditSession, mode: GenerationMode) -> None:
    """Requests fit the schema or violate it, with random and with existing ids."""

    with served(app_of(editing, limits=SMALL_LIMITS)) as address, httpx2.Client(base_url=address) as client:
        image = upload(client)
        job = client.post("/api/jobs", json={"image": image, "script": script(DELETE)}).json()["id"]
        real = {"images": image, "jobs": job}
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) == 13
        for operation in operations:
            _request_all_kinds(operation, mode, real)
        assert client.get("/api/model").status_code == 200


def _request_all_kinds(operation: APIOperation, mode: GenerationMode, real: dict[str, str]) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def request(case: Case) -> None:
        _check(case)
        if "{id}" in case.path:
            case.path_parameters["id"] = real[case.path.split("/")[2]]
        elif isinstance(case.body, dict):
            case.body["image"] = real["images"]
        else:
            return
        _check(case)

    # Without a parameter or a body there are no wrong requests.
    with contextlib.suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else contextlib.nullcontext():
        request()


def _check(case: Case) -> None:
    response = case.call(timeout=SECONDS)
    case.validate_response(response, checks=CHECKS)
    declared = case.operation.definition.raw["responses"][str(response.status_code)]
    if schema := declared.get("content", {}).get("application/json", {}).get("schema"):
        # Schemathesis takes lists of fixed length for those of an older draft.
        whole = case.operation.schema.raw_schema
        jsonschema.Draft202012Validator(schema | {"components": whole["components"]}).validate(response.json())
