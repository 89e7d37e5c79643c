"""The API's page: its OpenAPI description as plain HTML, without scripts, styles or other hosts."""

import json
from html import escape
from typing import Any


def page(openapi: dict[str, Any]) -> str:
    """Write an HTML page with every operation and schema of an OpenAPI description."""
    operations = [
        _operation(method, path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [
        f"<h3 id={escape(name)}><code>{escape(name)}</code></h3><pre>{_linked(schema)}</pre>"
        for name, schema in openapi["components"]["schemas"].items()
    ]
    title = escape(openapi["info"]["title"])
    return "\n".join(
        (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>",
            f"<p>{escape(openapi['info']['description'])}</p>",
            "<p>For programs: <a href=openapi.json>openapi.json</a></p>",
            *operations,
            "<h2>Schemas</h2>",
            *schemas,
        )
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", f"<p>{escape(operation['description'])}</p>"]
    for parameter in operation.get("parameters", ()):
        lines.append(f"<p><code>{escape(parameter['name'])}</code>: {_linked(parameter['schema'])}</p>")
    if body := operation.get("requestBody"):
        lines.append(f"<p>Body: {_content(body['content'])}</p>")
    lines.append("<ul>")
    for status, response in operation["responses"].items():
        content = _content(response.get("content", {}))
        lines.append(f"<li>{status}: {escape(response['description'])} {content}</li>")
    return "\n".join([*lines, "</ul>"])


def _content(content: dict[str, Any]) -> str:
    return ", ".join(f"<code>{escape(kind)}</code> {_linked(what.get('schema', {}))}" for kind, what in content.items())


def _linked(schema: dict[str, Any]) -> str:
    """Format a schema as JSON, or as a link if it has a name."""
    if reference := schema.get("$ref"):
        name = escape(reference.rsplit("/", 1)[-1])
        return f"<a href=#{name}>{name}</a>"
    return escape(json.dumps(schema, indent=1))
