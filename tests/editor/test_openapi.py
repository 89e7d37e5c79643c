"""Requests of all kinds, made of the server's own OpenAPI: none is answered by a 5xx, by something else than is declared,
or not at all."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
...
