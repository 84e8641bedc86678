"""A real browser at the service's page: it asks for name and token, shows tables, and runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fastapi_apps import plain
from service_apps import serving
from tokenkeep import NewToken, TokenVault
from tokenkeep.service.callers import KEPT_UNDER, open_callers

HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.mark.requirement("Z3")
def test_people_see_in_a_browser_the_accounts_they_may_see(browser: Browser, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    with TokenVault.open(url) as vault:
        for user in ("alice", HOSTILE):
            vault.store(user, NewToken("a token", expires_in=3600), provider="broker")
        vault.store("alice", NewToken("a token", expires_in=3600), provider="kite")
    with open_callers(url, "default") as issuer:
        token = plain(issuer.issue(KEPT_UNDER, scopes={"report:broker/*", "status"}, name="ann"))
    said: list[str] = []
    with serving(tmp_path, TOKENKEEP_URL=url) as service:
        context = browser.new_context(base_url=service.address, http_credentials={"username": "ann", "password": token})
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.goto("/")
        rows = page.locator("table").last.locator("tr")
        expect(rows).to_have_count(3)
        expect(rows.filter(has_text="onerror")).to_have_count(1)  # shown as text
        expect(rows.filter(has_text="alice")).to_contain_text("active")
        expect(page.locator("table").first).to_contain_text("healthy")
        expect(page).to_have_title("tokenkeep")
        assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
        assert page.locator("script, img, link, form").count() == 0
    assert not [text for text in said if "favicon" not in text]
