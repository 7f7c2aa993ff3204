"""Requests made from the server's own description of itself, well-formed and not: none may be a 5xx."""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.mark.slow
def test_no_request_is_a_server_error_and_every_answer_is_as_described(http) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {"/v1/embeddings", "/v1/rerank", "/search", "/map"} <= {operation.path for operation in operations}
    for operation in operations:
        posted = operation.method == "post"
        statuses = _fuzz(operation, str(http.base_url), examples=600 if posted else 30)
        assert not posted or min(statuses[200], statuses[400]) > 20


def _fuzz(operation, address: str, examples: int) -> Counter[int]:
    import hypothesis
    import schemathesis

    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    cases = [operation.as_strategy(generation_mode=mode) for mode in modes]
    statuses: Counter[int] = Counter()
    names = ("response_schema_conformance", "status_code_conformance", "content_type_conformance")
    checks = [schemathesis.checks.not_a_server_error, *schemathesis.checks.CHECKS.get_by_names(names)]

    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(hypothesis.strategies.one_of(cases))
    def check(case) -> None:
        response = case.call(base_url=address, timeout=20)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks)

    check()
    return statuses
