"""The ``holdfast`` command: its groups of commands, its global options, and errors as exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from holdfast import errors
from holdfast.cli import (
    audit,
    bench,
    demo,
    editing,
    ingest,
    keys,
    lifecycle,
    search,
    serve,
    sessions,
    settings,
    sweep,
    tiers,
    verify,
)
from holdfast.cli.call import As, Call, Home, Json, Tenant, TokenFile, Url
from holdfast.cli.coercion import Group
from holdfast.cli.exits import INTERRUPTED, exit_code
from holdfast.cli.output import as_json, clean, styled

GROUPS = (demo, serve, ingest, sessions, search, audit, verify, tiers, keys, sweep, bench, settings)
"""One module a command or group of commands, in the order of the help."""

NEXT: dict[str, str] = {
    "session-not-found": "`holdfast sessions list` shows those you may see",
    "session-gone": "`holdfast sessions revive SESSION` brings it back while it can be restored",
    "item-not-found": "`holdfast sessions show SESSION` lists the items",
    "label-not-found": "`holdfast sessions label SESSION` lists the labels",
    "version-conflict": "`holdfast sessions diff SESSION` shows the last change; --rebase lands beside others'",
    "seal-mismatch": "`holdfast sessions lock SESSION` previews it",
    "not-draft": "`holdfast sessions show SESSION` says what comes next",
    "lock-held": "`holdfast sessions take-over SESSION` takes it",
    "nothing-to-undo": "`holdfast sessions history SESSION` shows what was done",
    "unknown-operation": "`holdfast sessions run SESSION` lists them with their arguments",
    "unauthenticated": "HOLDFAST_TOKEN or --token-file says who asks",
    "store-down": "`holdfast tiers status` shows which tiers answer",
    "flush-queue-full": "`holdfast tiers status` shows how far the warm tier is behind",
    "tampered": "the other sessions are not touched by this",
}
"""What to do next on the command line, where the error's own sentence does not say it already."""


class Root(Group):
    """The command itself: turns whatever a command raises into one line and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order one meets them."""
        order = [group.__name__.rpartition(".")[2] for group in GROUPS]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                given,
                prog_name=prog_name or "holdfast",
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("HOLDFAST_DEBUG") == "1" and not isinstance(error, TyperException):
                raise
            code = report(error, json="--json" in given)
        else:
            if code == INTERRUPTED:  # typer has made an exit code of the interrupt already
                report(KeyboardInterrupt(), json="--json" in given)
        if standalone_mode:
            sys.exit(code)
        return code


def report(error: BaseException, *, json: bool) -> int:
    """Print an error on standard error, for a program or as one line with what to do next; returns the exit code."""
    code = exit_code(error)
    if json:
        print(as_json({"error": described(error)}), file=sys.stderr)
    elif isinstance(error, TyperException):
        error.show()  # type: ignore[attr-defined]
    else:
        print(f"{styled('Error:', 'red', 'bold', stream=sys.stderr)} {sentence(error)}", file=sys.stderr)
        if isinstance(error, errors.VersionConflictError):
            _show_conflicts(error)
    return code


def described(error: BaseException) -> dict[str, Any]:
    """An error for programs: a stable code, its sentence, and its facts."""
    if isinstance(error, errors.HoldfastError):
        return {"code": error.code, "message": str(error), **error.facts()}
    if isinstance(error, TyperException):
        return {"code": "usage", "message": error.format_message()}
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return {"code": "interrupted", "message": "Interrupted."}
    return {"code": "unexpected", "message": f"{type(error).__name__}: {error}"}


def sentence(error: BaseException) -> str:
    """An error for people: what is the matter, and what to do next, on one line."""
    if isinstance(error, errors.HoldfastError):
        hint = NEXT.get(error.code)
        if "change_id" in error.facts() and hint is None:
            hint = f"the change id is {error.facts()['change_id']}"
        return clean(" ".join(str(error).split())) + (f" ({hint}.)" if hint else "")
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "Interrupted. A write that was under way has either landed whole or not at all."
    if isinstance(error, OSError):
        return clean(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    return clean(f"{type(error).__name__}: {error} (HOLDFAST_DEBUG=1 shows the traceback.)")


def _show_conflicts(error: errors.VersionConflictError) -> None:
    from holdfast.cli.output import one_line

    for conflict in error.conflicts:
        print(f"  {clean(conflict.key)}", file=sys.stderr)
        for side in ("base", "theirs", "mine"):
            body = getattr(conflict, side)
            print(f"    {side:<7} {'(no such item)' if body is None else one_line(as_json(body), 96)}", file=sys.stderr)


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for group in GROUPS:
    group.register(app)
editing.register(sessions.app)
lifecycle.register(sessions.app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    json: Json = False,
    home: Home = None,
    asker: As = None,
    tenant: Tenant = None,
    url: Url = None,
    token_file: TokenFile = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep work in progress safe until it becomes official.

    Drafts that can be edited, undone, previewed, locked and published in one step, or thrown away.

    `holdfast demo` shows all of it on a document. Data is kept in the home directory of the settings; who may open its
    files is admin and operator. With --url a service is asked instead, by the token of who asks. --json, --home, --as,
    --tenant, --url and --token-file may stand before a command or after it.

    Exit codes: 0 fine, 1 unexpected, 2 usage, 3 not found, 4 conflict, 5 refused, 6 invalid, 7 unavailable,
    8 integrity, 9 configuration, 130 interrupted.
    """
    ctx.obj = Call(json=json, home=home, asker=asker, tenant=tenant, url=url, token_file=token_file)


def main() -> None:
    """The entry point of the ``holdfast`` script."""
    app()
