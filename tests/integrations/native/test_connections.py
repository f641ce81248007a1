"""How clients connect."""

from __future__ import annotations

import ssl

import pytest

from parrot_integrations._http import http_options
from parrot_integrations.settings import ClientSettings

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)


def test_without_tls_no_authority_is_loaded_and_none_is_trusted() -> None:
    verify = http_options(ClientSettings("http://127.0.0.1:1"))["verify"]
    assert isinstance(verify, ssl.SSLContext)
    assert verify.get_ca_certs() == []
    assert verify.verify_mode is ssl.CERT_REQUIRED


def test_with_tls_certificates_are_checked() -> None:
    assert http_options(ClientSettings("https://127.0.0.1:1"))["verify"] is True


def test_a_proxy_may_speak_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "https://127.0.0.1:2")
    assert http_options(ClientSettings("http://127.0.0.1:1"))["verify"] is True
