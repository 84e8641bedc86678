"""Third scene: what the vault knows afterwards, and what nobody finds in its file."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tokenkeep.api import TokenIssuer, TokenVault
from tokenkeep.cli import auditing, reports
from tokenkeep.cli.demo.crew import DemoFailed
from tokenkeep.cli.demo.stage import ALICE, BOB, PROVIDER, Stage
from tokenkeep.testing import Canary

_EVENTS: Final = 5


def play(stage: Stage) -> None:
    """Show history, statistics, audit and status; then search the files for what must not be there."""
    stage.heading("3. What the vault has written down")
    with TokenVault.open(stage.url, keys=stage.keys) as vault:
        reports.show_tokens(stage.screen, vault.history(ALICE, provider=PROVIDER), title="history alice")
        reports.show_statistics(stage.screen, vault.statistics(ALICE, provider=PROVIDER), title="stats alice")
        stage.screen.say("(uses are summed in each process and written together: the killed one took its own along)")
        auditing.show_audit(stage.screen, vault.audit_trail(ALICE, limit=_EVENTS), title="audit alice")
        auditing.show_audit(stage.screen, vault.audit_trail(BOB, limit=_EVENTS), title="audit bob")
        reports.show_status(stage.screen, vault.status(), title="status")
        tokens = [vault.get_valid(user, provider=PROVIDER) for user in (ALICE, BOB)]
        _search(stage, [token.access_token.reveal() for token in tokens if token is not None])


def _search(stage: Stage, tokens: list[str]) -> None:
    """Look for the tokens and the accounts' secrets in every file but that of the keys."""
    stage.heading("4. What a thief of the database finds")
    if len(tokens) != len(stage.accounts):
        msg = "a token of the demo is gone; this is a defect"
        raise DemoFailed(msg)
    canary = Canary()
    canary.watch(*tokens, label="a token")
    canary.watch(*stage.secrets(), label="a credential")
    if found := canary.found_in_files(stage.folder, but=[stage.key_file]):
        msg = f"{'; '.join(found)}: this is a defect"
        raise DemoFailed(msg)
    files = sorted(path for path in stage.folder.iterdir() if path != stage.key_file)
    size = sum(path.stat().st_size for path in files)
    stage.fact(
        f"searched {size:,} bytes in {', '.join(path.name for path in files)}: no token, no PIN, no password, no seed",
        f"the tokens are sealed; the key is in {stage.key_file.name}, mode 0600",
    )


def play_issuing(stage: Stage) -> None:
    """Issue a login token from the same file, verify it, revoke it, verify it again."""
    stage.heading("5. Tokens for your own users, from the same file")
    with TokenIssuer.open(stage.url, lifetime=timedelta(hours=1), keys=stage.keys) as issuer:
        issued = issuer.issue(ALICE, scopes={"orders:read"}, name="laptop")
        if issued.token is None:
            msg = "the issuer returned no token; this is a defect"
            raise DemoFailed(msg)
        before = issuer.verify(issued.token, scopes={"orders:read"})
        revoked = issuer.revoke(issued.id)
        after = issuer.verify(issued.token)
    if before is None or before.user_id != ALICE or not revoked or after is not None:
        msg = "an issued token did not verify, or verified after it was revoked; this is a defect"
        raise DemoFailed(msg)
    stage.fact(
        f"issued a token to {before.user_id} for orders:read, good for an hour; the file has only its digest",
        f"verify: it is {before.user_id}'s",
        "revoke, then verify again: None",
    )
