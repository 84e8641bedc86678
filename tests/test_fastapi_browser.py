"""A real browser at the example: it logs in by cookie, sees its sessions, and ends the other one."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from test_fastapi_examples import ALICE, running


@pytest.mark.requirement("L1", "L3", "L5")
def test_a_browser_logs_in_by_cookie_sees_its_sessions_and_ends_the_other_one(browser: Browser, tmp_path: Path) -> None:
    with running("fastapi_sessions", tmp_path) as phone:
        phone.post("/register", json=ALICE)
        phone.headers["User-Agent"] = "<img src=x onerror=document.title='owned'>"
        phone.post("/login", json=ALICE)
        context = browser.new_context(base_url=str(phone.base_url))
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Name").fill(ALICE["name"])
        page.get_by_label("Password").fill(ALICE["password"])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="alice")).to_be_visible()
        rows = page.locator("#sessions tr")
        expect(rows).to_have_count(2)
        expect(rows.filter(has_text="this one")).to_contain_text("Chrom")
        expect(rows.filter(has_text="onerror")).to_have_count(1)  # shown as text
        expect(page).to_have_title("Sessions")

        [cookie] = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
        assert cookie["value"] not in str(page.evaluate("document.cookie + JSON.stringify(localStorage)"))

        assert phone.get("/me").status_code == 200
        rows.filter(has_text="onerror").get_by_role("button", name="End").click()
        expect(rows).to_have_count(1)
        assert phone.get("/me").status_code == 401

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Name")).to_be_visible()
        stolen = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        assert httpx.get(f"{phone.base_url}/me", headers=stolen, trust_env=False).status_code == 401


@pytest.mark.requirement("L5")
def test_a_page_of_another_site_changes_nothing_with_the_cookie(browser: Browser, tmp_path: Path) -> None:
    with running("fastapi_sessions", tmp_path) as http:
        http.post("/register", json=ALICE)
        address = str(http.base_url)
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.get_by_label("Name").fill(ALICE["name"])
        page.get_by_label("Password").fill(ALICE["password"])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="alice")).to_be_visible()

        evil = context.new_page()
        forged = f'<form method="post" action="{address}/logout"></form><script>document.forms[0].submit()</script>'
        evil.route("http://evil.test/", lambda route: route.fulfill(content_type="text/html", body=forged))
        with evil.expect_response("**/logout") as answered:
            evil.goto("http://evil.test/")
        assert answered.value.status in {401, 403}  # Lax keeps the cookie back; were it sent, its origin is refused
        page.reload()
        expect(page.get_by_role("heading", name="alice")).to_be_visible()
