"""Differences for people: a sign, a colour and a word for each, and within a text what changed and its surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.cli.output import as_json, clean, counted, one_line, say, styled
from holdfast.model.difference import Difference, Word

SIGNS = {"added": "+", "changed": "~", "moved": ">", "deleted": "-"}
_STYLES = {"added": "green", "changed": "yellow", "moved": "cyan", "deleted": "red"}
_AROUND = 60
"""Characters of unchanged text shown on each side of a change."""
_LONG = 600
"""Characters of a changed run that are shown whole."""


def summary(counts: dict[str, int]) -> str:
    """Counts by verb as one sentence: ``14 added, 3 changed, 1 deleted``; ``no change`` where there is none."""
    return ", ".join(f"{counts[verb]:,} {verb}" for verb in SIGNS if counts.get(verb)) or "no change"


def signed(verbs: Sequence[str]) -> str:
    """Verbs as signs with their counts: ``+2 ~1 -1``."""
    return " ".join(f"{sign}{verbs.count(verb)}" for verb, sign in SIGNS.items() if verb in verbs)


def tally(differences: Sequence[Difference]) -> dict[str, int]:
    """How many differences there are of each verb."""
    verbs = [difference.verb for difference in differences]
    return {verb: verbs.count(verb) for verb in SIGNS if verb in verbs}


def show(differences: Sequence[Difference], *, most: int | None = None, full: bool = False) -> None:
    """Print differences, each under its key, and a count at the end.

    Args:
        most: print no more than this many; None for all.
        full: long runs of text whole, instead of their ends.
    """
    for difference in differences[:most]:
        verb = difference.verb
        say(styled(f"{SIGNS[verb]} {clean(difference.key)}  ({verb})", _STYLES[verb], "bold"))
        for line in _lines(difference, full=full):
            say(f"    {line}".rstrip())
    if most is not None and len(differences) > most:
        say(f"… and {counted(len(differences) - most, 'more item')}.")
    say(f"{counted(len(differences), 'item')}: {summary(tally(differences))}." if differences else "No difference.")


def words(run: Sequence[Word], *, full: bool = False) -> str:
    """Words as a running text: ``[-gone-]`` in red, ``{+new+}`` in green, what is unchanged shortened."""
    parts = []
    for at, word in enumerate(run):
        text = clean(word.text)
        if word.op == "=":
            parts.append(text if full else _around(text, first=at == 0, last=at == len(run) - 1))
        else:
            text = text if full else _ends(text)
            opening, closing, style = ("[-", "-]", "red") if word.op == "-" else ("{+", "+}", "green")
            parts.append(_each_line(f"{opening}{text}{closing}", style))
    return "".join(parts)


def _lines(difference: Difference, *, full: bool) -> list[str]:
    """What there is to say of one difference, line by line."""
    before, after = difference.before, difference.after
    if difference.verb == "moved":
        return []
    if difference.verb == "changed" and (difference.texts or (isinstance(before, dict) and isinstance(after, dict))):
        lines = []
        for text in difference.texts:
            path = "" if text.path in ("", "text") else styled(f"{clean(text.path)}: ", "dim")
            lines += (path + words(text.words, full=full)).splitlines()
        return lines + _other_fields(difference)
    gone = [] if before is None else [styled(f"- {line}", "red") for line in _body(before, full=full)]
    new = [] if after is None else [styled(f"+ {line}", "green") for line in _body(after, full=full)]
    return gone + new


def _other_fields(difference: Difference) -> list[str]:
    """Fields that changed beside the texts whose words are shown."""
    before, after = difference.before, difference.after
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    shown = {text.path.partition(".")[0] for text in difference.texts}
    lines = []
    for name in sorted({*before, *after} - shown):
        was, now = (_field(side, name) for side in (before, after))
        if was != now:
            gone = styled(f"[-{was}-]", "red") if was else ""
            new = styled(f"{{+{now}+}}", "green") if now else ""
            lines.append(f"{styled(clean(name), 'dim')}: {gone}{new}")
    return lines


def _field(body: dict[str, Any], name: str) -> str:
    return one_line(as_json(body[name]), 60) if name in body else ""


def _each_line(text: str, style: str) -> str:
    """Text in colour, each line for itself, so that what stands between lines keeps its own."""
    return "\n".join(styled(line, style) if line else "" for line in text.split("\n"))


def _around(text: str, *, first: bool, last: bool) -> str:
    """The ends of unchanged text that touch a change; the middle, or the far end, becomes an ellipsis."""
    if len(text) <= 2 * _AROUND + 20:
        return text
    head, tail = text[:_AROUND].rpartition(" ")[0], text[-_AROUND:].partition(" ")[2]
    head, tail = head or text[:_AROUND], tail or text[-_AROUND:]
    return f"… {tail}" if first else f"{head} …" if last else f"{head} … {tail}"


def _ends(text: str) -> str:
    """A long run of changed text by its beginning and its end."""
    if len(text) <= _LONG:
        return text
    return f"{text[: _LONG * 2 // 3]} … ({len(text) - _LONG:,} characters) … {text[-_LONG // 3 :]}"


def _body(body: Any, *, full: bool, most: int = 4) -> list[str]:
    """A body, or its first lines: its text where it has one, else its JSON."""
    text = body["text"] if isinstance(body, dict) and isinstance(body.get("text"), str) else body
    lines = [line for line in (text if isinstance(text, str) else as_json(body)).splitlines() if line.strip()]
    if full:
        return [clean(line) for line in lines]
    lines = [one_line(line, 100) for line in lines]
    return lines if len(lines) <= most else [*lines[: most - 1], f"… ({counted(len(lines) - most + 1, 'more line')})"]
