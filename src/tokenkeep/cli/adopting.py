"""Taking over the table of another library."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenkeep.adopting import adopt
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import need_database


@command
def adopt_fastapi_users(
    session: Session,
    *,
    table: Annotated[str, typer.Option(help="the table of access tokens, or MongoDB's collection")] = "accesstoken",
) -> None:
    """Write digests in the place of the tokens that fastapi-users left in clear. Nobody is logged out by it.

    `--url` names the application's database. First let every process of the application run with
    `tokenkeep.fastapi_users`: the original knows no digests. Interrupted, the next call goes on.
    """
    need_database(session)
    with session.screen.progress("rewriting", total=0) as progress:
        task = progress.task_ids[0]
        rewritten = adopt(
            session.url, table, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    if session.screen.json:
        session.screen.data({"table": table, "rewritten": rewritten})
    session.screen.say(
        f"rewrote {rewritten} tokens of {table} as digests" if rewritten else f"no token of {table} is in clear"
    )
