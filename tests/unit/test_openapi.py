"""The published document: valid, complete, and made of what the code validates with."""

import json
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from http_api.app import operations
from http_api.rest import openapi
from http_api.rest.operation import Operation
from http_api.rest.problems import PROBLEMS
from http_api.rest.signing_in import SigningIn
from http_api.services import Services
from infra.redis_link import RedisLink
from models.settings import Settings

CONTRACT = {
    "POST /api/auth/register": "anyone",
    "POST /api/auth/login": "anyone",
    "POST /api/auth/renew": "admin customer mechanic",
    "POST /api/auth/logout": "admin customer mechanic",
    "POST /api/auth/password": "admin customer mechanic",
    "POST /api/auth/password/forgot": "anyone",
    "POST /api/auth/password/reset": "anyone",
    "DELETE /api/me": "customer mechanic",
    "GET /api/me": "admin customer mechanic",
    "PATCH /api/me": "admin customer mechanic",
    "GET /api/me/devices": "admin customer mechanic",
    "DELETE /api/me/devices/{device_id}": "admin customer mechanic",
    "GET /api/config": "anyone",
    "GET /api/mechanics/{id}/status": "admin customer mechanic",
    "GET /api/mechanics/status": "admin customer mechanic",
    "GET /api/mechanics/availability": "admin customer mechanic",
    "GET /api/favorites": "customer",
    "PUT /api/favorites/{mechanic_id}": "customer",
    "DELETE /api/favorites/{mechanic_id}": "customer",
    "GET /api/plans": "anyone",
    "POST /api/checkout": "customer",
    "GET /api/checkout/{checkout_id}": "customer",
    "POST /api/stripe/webhook": "anyone",
    "GET /api/requests": "customer mechanic",
    "GET /api/requests/{id}": "customer mechanic",
    "POST /api/requests/{id}/skip-wait": "customer",
    "POST /api/requests/{id}/cancel": "customer",
    "POST /api/requests/{id}/start": "mechanic",
    "POST /api/requests/{id}/find-another": "customer",
    "POST /api/requests/{id}/complete": "customer mechanic",
    "POST /api/requests/{id}/report": "customer",
    "POST /api/requests/{id}/release": "mechanic",
    "GET /api/offers": "mechanic",
    "POST /api/offers/{id}/accept": "mechanic",
    "POST /api/offers/{id}/decline": "mechanic",
    "GET /api/me/preferences": "mechanic",
    "PUT /api/me/preferences": "mechanic",
    "GET /api/offers/past": "mechanic",
    "GET /api/me/hours": "mechanic",
    "GET /api/push/key": "customer mechanic",
    "GET /api/push/subscriptions": "customer mechanic",
    "POST /api/push/subscriptions": "customer mechanic",
    "DELETE /api/push/subscriptions": "customer mechanic",
    "DELETE /api/push/subscriptions/{id}": "customer mechanic",
    "POST /api/push/test": "customer mechanic",
    "POST /api/ws-ticket": "admin customer mechanic",
    "GET /api/ops/snapshot": "admin",
    "POST /api/ops/accounts/{id}/disable": "admin",
    "POST /api/ops/accounts/{id}/enable": "admin",
    "POST /api/ops/requests/{id}/refund": "admin",
    "POST /api/ops/requests/{id}/settle": "admin",
    "POST /api/ops/refunds/{id}/retry": "admin",
    "GET /healthz": "anyone",
    "GET /readyz": "anyone",
    "GET /metrics": "anyone",
}
"""Every call of the contract's table, and who may make it."""


@pytest.fixture(scope="module")
def table() -> list[Operation]:
    settings = Settings(_env_file=None, secret_key="x" * 32).doors()
    # Nothing behind the table is called, and nothing connects before it is.
    parts: dict[str, Any] = dict.fromkeys(Services.__dataclass_fields__)
    parts |= {"settings": settings, "link": RedisLink("redis://127.0.0.1:1", prefix="test")}
    parts["signing_in"] = SigningIn(*[cast(Any, None)] * 5)
    return operations(Services(**parts))


@pytest.fixture(scope="module")
def document(table: list[Operation]) -> dict[str, Any]:
    return json.loads(json.dumps(openapi.document(table, base_url="http://127.0.0.1:8000")))


def test_the_document_is_valid_openapi(document: dict[str, Any]):
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_the_table_is_the_contracts(table: list[Operation]):
    assert {f"{each.method} {each.path}": " ".join(sorted(each.roles or ["anyone"])) for each in table} == CONTRACT


def test_operation_ids_are_unique_and_every_operation_says_what_it_does(table: list[Operation]):
    assert len({each.name for each in table}) == len(table)
    for each in table:
        assert each.summary != each.name
        assert each.summary.endswith((".", "safely stored, or was before."))


def test_every_code_that_an_operation_declares_has_a_status_and_a_title(table: list[Operation]):
    declared = {code for each in table for code in each.codes}
    assert declared <= PROBLEMS.keys()
    # What nobody declares, only the router itself says.
    assert PROBLEMS.keys() - declared == {
        "method_not_allowed",
        "malformed_request",
        "request_timeout",
        "head_too_large",
    }


def test_what_needs_signing_in_says_so_and_what_does_not_does_not(document: dict[str, Any]):
    for path, methods in document["paths"].items():
        for method, each in methods.items():
            is_open = CONTRACT[f"{method.upper()} {path}"] == "anyone"
            assert each["security"] == ([] if is_open else [{"bearer": []}, {"cookie": []}])
            assert ("401" in each["responses"]) is (not is_open or path == "/api/auth/login")


def test_a_body_with_an_unknown_member_does_not_fit_its_published_schema(document: dict[str, Any]):
    schema = {"$ref": "#/components/schemas/CheckoutBody", "components": document["components"]}
    checkout = {"plan": "quick_chat", "routing_type": "broadcast"}
    Draft202012Validator(schema).validate(checkout)
    assert not Draft202012Validator(schema).is_valid(checkout | {"price_cents": 1})
    assert not Draft202012Validator(schema).is_valid(checkout | {"routing_type": "auction"})


def test_query_and_header_parameters_are_published_with_their_bounds(document: dict[str, Any]):
    listed = {each["name"]: each for each in document["paths"]["/api/requests"]["get"]["parameters"]}
    assert listed["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert listed["status"]["schema"]["$ref"] == "#/components/schemas/RequestStatus"
    assert "priority_offered" in document["components"]["schemas"]["RequestStatus"]["enum"]
    ids = document["paths"]["/api/mechanics/status"]["get"]["parameters"][0]
    assert (ids["name"], ids["required"], ids["explode"], ids["schema"]["maxItems"]) == ("ids", True, False, 100)
    key = document["paths"]["/api/checkout"]["post"]["parameters"][0]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", False)


def test_the_page_names_every_operation_and_every_code_and_runs_no_script(document: dict[str, Any]):
    page = openapi.page(document)
    for path in document["paths"]:
        assert path in page
    for code in PROBLEMS:
        assert f'id="{code}"' in page
    assert "<script" not in page
    assert "style=" not in page


def test_the_page_escapes_what_it_is_given(document: dict[str, Any]):
    document = json.loads(json.dumps(document))
    document["paths"]["/api/me"]["get"]["summary"] = "<b>`<i>`"
    assert "&lt;b&gt;<code>&lt;i&gt;</code>" in openapi.page(document)
