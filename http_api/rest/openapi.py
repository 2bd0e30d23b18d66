"""The table of operations as an OpenAPI 3.1 document, and as a page to read."""

from collections.abc import Iterable
from html import escape
from typing import Any

import msgspec
from msgspec import Struct

from http_api import cookies
from http_api.rest.operation import MEANT_FOR, NoBody, Operation, RawBody
from http_api.rest.problems import MEDIA_TYPE, PROBLEMS
from models.ids import ID_PATTERN
from models.rest import Problem

REF = "#/components/schemas/{name}"
TITLE = "Pitlane"
INTRODUCTION = (
    "Drivers rebook the mechanics they trust. JSON in UTF-8, instants in RFC 3339 UTC with milliseconds, money in integer "
    "minor units. Refusals are RFC 9457 problems whose `code` is stable. What travels on the sockets is described at "
    "`/asyncapi.json`."
)


def document(operations: Iterable[Operation], *, base_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of ``operations``, ready for JSON."""
    operations = list(operations)
    types: dict[Any, None] = {Problem: None}
    for each in operations:
        types |= dict.fromkeys(_types_of(each))
    queries = dict.fromkeys(each.query for each in operations if each.query is not None)
    schemas, components = msgspec.json.schema_components([*types, *queries], ref_template=REF)
    schema_of = dict(zip([*types, *queries], schemas, strict=True))
    # A query is published member by member, as parameters; the words that its members refer to stay among the schemas.
    schema_of |= {query: components.pop(query.__name__) for query in queries}
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1", "description": INTRODUCTION},
        "servers": [{"url": base_url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookies.SESSION,
                    "description": "For browsers; a write's `Origin` must then be our own.",
                },
            },
        },
    }


def _types_of(each: Operation) -> list[type[Struct]]:
    carried = [kind for answer in each.answers.values() for kind in (answer if isinstance(answer, tuple) else [answer])]
    kinds = [kind for kind in [each.body, *carried] if isinstance(kind, type) and issubclass(kind, Struct)]
    return [kind for kind in kinds if kind is not NoBody]


def _operation(each: Operation, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": each.name,
        "tags": [_tag(each)],
        "summary": each.summary,
        "parameters": _parameters(each, schema_of),
        "responses": _responses(each, schema_of),
        "security": [] if each.roles is None else [{"bearer": []}, {"cookie": []}],
    }
    if each.description:
        described["description"] = each.description
    if each.roles is not None:
        described["x-roles"] = sorted(each.roles)
    if isinstance(each.body, RawBody):
        content = {"application/json": {"schema": {"type": "object"}}}
        described["requestBody"] = {"required": True, "content": content}
    elif each.body is not None and each.body is not NoBody:
        content = {"application/json": {"schema": schema_of[each.body]}}
        described["requestBody"] = {"required": not each.body_is_optional, "content": content}
    return described


def _tag(each: Operation) -> str:
    """Return the noun that the operation belongs to, from its path."""
    parts = each.path.strip("/").split("/")
    return parts[1] if parts[0] == "api" else "operators"


def _parameters(each: Operation, schema_of: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": ID_PATTERN}}
        for name in each.path_parameters
    ]
    if each.query is not None:
        schema = schema_of[each.query]
        for name, declared in schema["properties"].items():
            # Left out, not null, is how a query says nothing.
            member = next(iter(declared.get("anyOf", [declared])))
            parameter = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": member}
            if member.get("type") == "array":
                parameter |= {"style": "form", "explode": False}
            parameters.append(parameter)
    for header in [*([] if each.header is None else [each.header]), *([] if each.roles is None else [MEANT_FOR])]:
        parameters.append(
            {
                "name": header.name,
                "in": "header",
                "required": False,
                "description": header.description,
                "schema": {"type": "string", "pattern": f"^{header.pattern}$"},
            }
        )
    return parameters


def _responses(each: Operation, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, carried in each.answers.items():
        response: dict[str, Any] = {"description": "Done" if carried is None else "Done, with this"}
        if carried is not None:
            response["content"] = {each.media_type.partition(";")[0]: {"schema": _carried_schema(carried, schema_of)}}
        responses[str(status)] = response
    by_status: dict[int, list[str]] = {}
    for code in each.codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        schema = {"allOf": [schema_of[Problem], {"properties": {"code": {"enum": codes}}}]}
        responses[str(status)] = {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code][1]}" for code in codes),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        if status in (429, 502, 503):
            responses[str(status)]["headers"] = {
                "Retry-After": {"description": "Seconds, at least one", "schema": {"type": "integer", "minimum": 1}}
            }
    return responses


def _carried_schema(carried: Any, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(carried, tuple):
        return {"oneOf": [schema_of[kind] for kind in carried]}
    return {"type": "string"} if carried is str else schema_of[carried]


# --- the page ---------------------------------------------------------------------------------------------------------


def page(described: dict[str, Any]) -> str:
    """Return ``described`` as an HTML page without scripts."""
    sections: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, each in methods.items():
            sections.setdefault(each["tags"][0], []).append(_entry(method.upper(), path, each))
    body = "".join(f"<section><h2>{escape(tag)}</h2>{''.join(entries)}</section>" for tag, entries in sections.items())
    codes = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status}</td><td>{escape(title)}</td></tr>'
        for code, (status, title) in PROBLEMS.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}: the REST interface</title>
<link rel="icon" href="/static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/theme.css">
</head>
<body>
<main>
<h1>{TITLE}: the REST interface</h1>
<p>{_text(described["info"]["description"])}</p>
<p><a href="/openapi.json">openapi.json</a> · <a href="/asyncapi.json">asyncapi.json</a></p>
{body}
<section><h2>codes</h2><table><thead><tr><th>code</th><th>status</th><th>title</th></tr></thead><tbody>{codes}</tbody></table></section>
</main>
</body>
</html>
"""


def _entry(method: str, path: str, each: dict[str, Any]) -> str:
    who = " or ".join(each.get("x-roles", ["anyone"]))
    lines = [f"<p>{_text(each['description'])}</p>"] if "description" in each else []
    items = [f"<li>who: {escape(who)}</li>"]
    for parameter in each["parameters"]:
        needed = "" if parameter["required"] else ", optional"
        items.append(f"<li>{parameter['in']}: <code>{escape(parameter['name'])}</code>{needed}</li>")
    if "requestBody" in each:
        schema = each["requestBody"]["content"]["application/json"]["schema"]
        items.append(f"<li>body: <code>{escape(_schema_name(schema))}</code></li>")
    for status, response in each["responses"].items():
        names = [
            _schema_name(each["schema"]) for kind, each in response.get("content", {}).items() if kind != MEDIA_TYPE
        ]
        carried = "".join(f" <code>{escape(name)}</code>" for name in names if name)
        items.append(f"<li>{status}: {_text(response['description'])}{carried}</li>")
    lines.append(f"<ul>{''.join(items)}</ul>")
    title = f"<summary><code>{method} {escape(path)}</code> — {_text(each['summary'])}</summary>"
    return f"<details>{title}{''.join(lines)}</details>"


def _schema_name(schema: dict[str, Any]) -> str:
    for several in ("oneOf", "allOf"):
        if several in schema:
            return " | ".join(filter(None, map(_schema_name, schema[several])))
    reference: str = schema.get("$ref", "")
    return reference.rpartition("/")[2]


def _text(text: str) -> str:
    """Return ``text`` for HTML, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
