"""What one key has used does not show in the time of another key's reply."""

import json
from collections import Counter
from typing import Any

import pytest

from langchain_sequrity import patterns
from langchain_sequrity.local import configuration
from langchain_sequrity.sqrt import policy_forms
from tests.local.api import Api

POLICY = {"codes": 'tool r"^pay_[a-z]+$" { must deny when amount.value in {int 100..}; }'}
HEADERS = {
    "X-Policy": json.dumps(POLICY),
    "X-Config": json.dumps({"fsm": {"force_to_cache": ["^look_[0-9]{3}$"]}}),
}
COMPILED = [
    (policy_forms, "compiled_tools"),
    (configuration, "compile_policy"),
    (patterns, "_compiled"),
]


@pytest.mark.parametrize(("home", "name"), COMPILED, ids=[name for _, name in COMPILED])
def test_each_key_pays_once_for_its_own_policies_and_patterns(
    api: Api, monkeypatch: pytest.MonkeyPatch, home: Any, name: str
) -> None:
    function = getattr(home, name)
    calls: Counter[str] = Counter()

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[key] += 1
        return function(*args, **kwargs)

    monkeypatch.setattr(home, name, counted)
    for _ in range(2):
        for key in (f"{api.key}-first", f"{api.key}-second"):
            authorization = {"Authorization": f"Bearer {key}"}
            assert api.chat("Go", headers={**HEADERS, **authorization}).status_code == 200
    first, second = calls.values()
    assert first == second > 0
    once = calls.copy()
    assert api.chat("Go", headers={**HEADERS, **authorization}).status_code == 200
    assert calls == once
