"""``ParrotSettings`` and the making of services: environment, ``.env`` files, wrong values."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.exceptions import ServiceInitializationError

from parrot_integrations import AsyncParrotClient, NotConfigured
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotSettings,
    ParrotTextCompletion,
)

KINDS: list[Any] = [ParrotChatCompletion, ParrotTextCompletion]
SECRET = "sk-very-secret"
both = pytest.mark.parametrize("kind", KINDS)


def test_settings_come_from_the_environment(parrot_unit_test_env: dict[str, str]) -> None:
    settings = ParrotSettings()
    assert settings.chat_model_id == parrot_unit_test_env["PARROT_CHAT_MODEL_ID"]
    assert settings.text_model_id == parrot_unit_test_env["PARROT_TEXT_MODEL_ID"]
    assert settings.host == parrot_unit_test_env["PARROT_HOST"]
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == parrot_unit_test_env["PARROT_API_KEY"]
    assert parrot_unit_test_env["PARROT_API_KEY"] not in repr(settings)


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "parrot.env"
    file.write_text(f"PARROT_CHAT_MODEL_ID=größe\nPARROT_HOST=http://f\nPARROT_API_KEY={SECRET}\n")
    chat = ParrotChatCompletion(env_file_path=str(file), env_file_encoding="utf-8")
    assert (chat.ai_model_id, chat.service_url()) == ("größe", "http://f")
    assert chat.endpoint.api_key == SECRET


@both
def test_a_service_from_the_environment(kind: Any, parrot_unit_test_env: dict[str, str]) -> None:
    service = kind()
    assert service.ai_model_id == parrot_unit_test_env[f"PARROT_{kind.MODEL_SETTING.upper()}"]
    assert service.service_id == service.ai_model_id
    assert service.endpoint.api_key == parrot_unit_test_env["PARROT_API_KEY"]
    assert service.service_url() == parrot_unit_test_env["PARROT_HOST"]


@both
def test_arguments_win(
    kind: Any, model_id: str, service_id: str, parrot_unit_test_env: dict[str, str]
) -> None:
    service = kind(model_id, service_id=service_id, host="https://other/v1/", api_key=SECRET)
    assert (service.ai_model_id, service.service_id) == (model_id, service_id)
    assert service.connection.settings.base_url == service.service_url() == "https://other"
    assert service.connection.settings.api_key == SECRET


@both
def test_without_a_name_it_is_the_default_model(kind: Any, host: str) -> None:
    assert kind(host=host).ai_model_id == kind(host=host).service_id == "default"


@both
def test_an_empty_service_id_is_the_model_s(kind: Any, model_id: str, host: str) -> None:
    assert kind(model_id, service_id="", host=host).service_id == model_id


@both
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_model_id_is_an_error(kind: Any, empty: str, host: str) -> None:
    with pytest.raises(ServiceInitializationError, match="ai_model_id"):
        kind(empty, host=host, env_file_path="fake_env_file_path.env")


@both
def test_an_empty_model_id_in_the_environment_is_an_error(
    kind: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PARROT_{kind.MODEL_SETTING.upper()}", "")
    with pytest.raises(ServiceInitializationError):
        kind(host=host)


@both
@pytest.mark.parametrize("exclude_list", [["PARROT_HOST"]], indirect=True)
def test_no_server_is_an_error_of_both_trees(
    kind: Any, parrot_unit_test_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServiceInitializationError, match="PARROT_HOST") as caught:
        kind(env_file_path="fake_env_file_path.env")
    assert isinstance(caught.value, NotConfigured)
    assert "pass host=" in str(caught.value)
    assert "base_url=" not in str(caught.value)
    monkeypatch.setenv("PARROT_BASE_URL", "http://base")
    assert kind().service_url() == "http://base"


@both
def test_an_address_that_is_none_is_named_as_it_was_given(kind: Any) -> None:
    with pytest.raises(ServiceInitializationError) as caught:
        kind(host="127.0.0.1:8642")
    told = "The host must begin with http:// or https://, not '127.0.0.1:8642'. [invalid_base_url]"
    assert str(caught.value) == told


WRONG = [{"host": "localhost:1"}, {"timeout_s": 0}, {"perf": "fast"}, {"ai_model_id": 3}]


@both
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_value_is_an_error_that_does_not_show_the_key(kind: Any, wrong: Any) -> None:
    with pytest.raises(ServiceInitializationError) as caught:
        kind(**{"host": "http://x", "api_key": SECRET, **wrong})
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__)


@both
def test_a_client_replaces_the_host(kind: Any, custom_client: AsyncParrotClient) -> None:
    service = kind(client=custom_client)
    assert service.connection.own_async_client is custom_client
    assert service.service_url() == custom_client.settings.base_url


@both
def test_the_key_is_shown_nowhere(kind: Any) -> None:
    host = f"http://user:{SECRET}@x/p?token={SECRET}"
    service = kind(host=host, api_key=SECRET)
    shown = [repr(service), str(service), service.service_url(), service.model_dump_json()]
    shown += [repr(service.connection), repr(Kernel(services=[service]))]
    shown += [repr(ParrotSettings(host=host, base_url=host))]
    assert not any(SECRET in text for text in shown)
    assert service.service_url() == "http://x/p"


@both
def test_services_are_copied_pickled_and_compared(
    kind: Any, custom_client: AsyncParrotClient
) -> None:
    service = kind("m", host="http://x", api_key=SECRET, app="a", perf="throughput", timeout_s=3)
    assert pickle.loads(pickle.dumps(service)) == copy.deepcopy(service) == service
    assert service != kind("n", host="http://x")
    assert service != service.with_session(stage="s")
    own = kind(client=custom_client)
    assert copy.deepcopy(own).client is copy.deepcopy([own])[0].client is custom_client
    assert own.model_copy(deep=True) == own


def test_a_kernel_finds_its_services(host: str) -> None:
    chat = ParrotChatCompletion(host=host)
    text = ParrotTextCompletion(host=host, service_id="text")
    kernel = Kernel(services=[chat, text])
    found: Any = kernel.clone().get_service("default")
    assert found == chat
    assert kernel.get_service(type=ParrotTextCompletion) is text
