"""Texts that are not valid YAML, explained to people who do not know YAML."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, NamedTuple

import yaml

from hiresnet_graph.errors import Position, Problem, Source

_BAD_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SEPARATORS = {"\x85": "next line", "\u2028": "line separator", "\u2029": "paragraph separator"}
_MAX_BAD_CHARACTERS = 20
_MAX_KEY = 1024  # of a key without '?', in both parsers


def character_problems(source: Source) -> list[Problem]:
    """The characters that a file must not contain, up to 20 of them."""
    problems = []
    position, index = Position(source, 1, 1), 0
    for match in _BAD_CHARACTER.finditer(source.text):
        character, code = match[0], f"U+{ord(match[0]):04X}"
        hint = f'Remove it, or write "\\u{ord(character):04x}" inside double quotes.'
        if character in _SEPARATORS:
            message = f"the {_SEPARATORS[character]} character {code} is not allowed in a file."
        elif character == "\ufeff":
            message = f"a byte order mark ({code}) is allowed at the start of a file only."
        elif "\ud800" <= character <= "\udfff":
            message, hint = f"half of a surrogate pair, {code}, is not allowed in a file.", "Remove it."
        else:
            message = f"the control character {code} is not allowed in a file."
        position, index = position.after(source.text[index : match.start()]), match.start()
        problems.append(Problem(message, position, hint=hint))
        if len(problems) == _MAX_BAD_CHARACTERS:
            break
    return problems


# ------------------------------------------------------------------------------------------------------ cut templates


def _closing(text: str, start: int) -> int:
    """The index of the bracket that closes the one at `start`, or -1."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return -1


def find_cut(text: str) -> int:
    """The index of the first `$(` that is never closed, or -1."""
    start = text.find("$(")
    while start >= 0:
        end = _closing(text, start + 1)
        if end < 0:
            return start
        start = text.find("$(", end)
    return -1


def cut_template(position: Position, path: str) -> Problem:
    """A template that YAML cuts off at a `,` or a bracket, because it is inside brackets without quotes."""
    line = position.source.line(position.line)
    start = position.column - 1
    end = _closing(line, start + 1)
    full = line[start : end + 1] if end > 0 else "$(...)"
    message = "inside {} and [] YAML ends a text at ',' and at brackets, which cuts this template off."
    quote = '"' if "'" in full else "'"
    return Problem(message, position, path, f"Put the text in quotes: {quote}{full}{quote}.")


# ------------------------------------------------------------------------------------------------------------ comments

_COMMENT = re.compile(r"\A(//|/\*)|\s(//|/\*)")

_COMMENT_LINE = re.compile(r"""(?:[^"'/]|"[^"]*"|'[^']*')*(?<![^\s,{}\[\]"'])(//|/\*)""")


def find_comment(text: str, source: Source) -> int:
    """The index of a comment as in C inside an unquoted text in brackets, or -1."""
    match = _COMMENT.search(text)
    is_json = source.text.lstrip().startswith("{")
    return (
        -1 if match is None or "$" in text or (match.start() > 0 and not is_json) else match.start(match.lastindex or 0)
    )


def comment(position: Position, path: str) -> Problem:
    """A comment in the form of another language."""
    sign = position.source.line(position.line)[position.column - 1 :][:2]
    hint = "Start it with '#', also in JSON files, or put text in quotes."
    return Problem(f"'{sign}' does not start a comment.", position, path, hint)


# ------------------------------------------------------------------------------------------------------ syntax errors


class _Explanation(NamedTuple):
    """What to say if PyYAML's `context: problem at 'character'` matches a pattern.

    Attributes:
        at_start: The position is that of the construct in which the error is.
    """

    pattern: str
    message: str
    hint: str = ""
    at_start: bool = False


_EXPLANATIONS = (
    _Explanation("quoted scalar: .*(end of stream|document indicator)", "this quote is never closed.", "", True),
    _Explanation(
        ": .*(escape|hexa?decimal)",
        "this backslash does not start a valid escape sequence.",
        r"Write '\\' for a backslash, or use single quotes.",
    ),
    _Explanation(
        r"',' or .*?(?P<close>[\]}])",
        "expected ',' or '{close}' here, to continue what starts at {start}.",
        "Close it, or put text that holds '{character}' in quotes.",
    ),
    _Explanation(r"tab character|cannot start .* at '\\t'", "a tab may not be used for indentation.", "Use spaces."),
    _Explanation("cannot start any token", "a value may not start with '{character}'.", "Put the text in quotes."),
    _Explanation(
        "mapping values are not allowed",
        "a ':' is not expected here.",
        "Check the indentation, or put text that holds ': ' in quotes.",
    ),
    _Explanation("could not find expected ':'", "expected 'name: value' here, but there is no ': '.", "", True),
    _Explanation(
        "expected key|mapping: .*expected <block end>",
        "expected the next key of the mapping that starts at {start}.",
        "Check the indentation, and that quotes enclose the full text.",
    ),
    _Explanation(
        "'-' indicator|expected <block end>",
        "expected the next '- ' of the list that starts at {start}.",
        "Check the indentation.",
    ),
    _Explanation(
        "sequence entries are not allowed", "an entry of a list may not start here.", "Write each '- ' on its own line."
    ),
    _Explanation(r"\btag\b.*: |tag handle", "tags are not supported.", "Remove the tag."),
    _Explanation("node content", "expected a value here, got {got}.", "Put text that holds such characters in quotes."),
    _Explanation("incompatible|directive.*: ", "this '%' line is not a directive of YAML 1.2.", "Remove the line."),
    _Explanation("document", "a file holds one document, and nothing after it."),
)


def explain_syntax(error: yaml.YAMLError, source: Source, path: str) -> Problem:
    """What a scanner, parser or composer of YAML complains about.

    Args:
        path: Of the value that is read, for the problem.
    """
    what = str(getattr(error, "problem", None) or error)
    context = str(getattr(error, "context", None) or "")
    mark, context_mark = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if mark is None:
        return Problem(f"not valid YAML: {what}.", Position(source, 1, 1))
    position = Position(source, mark.line + 1, mark.column + 1)
    start = Position(source, context_mark.line + 1, context_mark.column + 1) if context_mark is not None else position
    text, index = source.text, min(mark.index, len(source.text))
    if "alias" in f"{context} {what}" or "anchor" in context:
        return unsupported(start if context.startswith("while") else position, path)
    line_start = max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1
    if "quoted" not in context:
        if (cut := find_cut(text[line_start:index])) >= 0:
            return cut_template(position._replace(column=cut + 1), path)
        if index >= len(text.rstrip()) and (bracket := _open_bracket(text)) is not None:
            opened = Position(source, bracket.start_mark.line + 1, bracket.start_mark.column + 1)
            return Problem(f"this '{text[bracket.start_mark.index]}' is never closed.", opened, path)
    for line in (position.line, position.line - 1) if text.lstrip().startswith("{") else ():
        if match := _COMMENT_LINE.match(source.line(line)):
            return comment(Position(source, line, match.start(1) + 1), path)
    character = text[index : index + 1]
    for known in _EXPLANATIONS:
        if match := re.search(known.pattern, f"{context}: {what} at {character!r}"):
            values = {"character": character, "start": f"{start.line}:{start.column}", **match.groupdict()}
            values["got"] = f"'{character}'" if character.strip() else "the end of the line"
            hint = known.hint.format_map(values)
            if "mapping values" in what and mark.column > _MAX_KEY:
                hint = f"A key has at most {_MAX_KEY:,} characters."
            return Problem(known.message.format_map(values), start if known.at_start else position, path, hint)
    return Problem(f"not valid YAML: {context + ': ' if context else ''}{what}.", position, path)


def unsupported(position: Position, path: str) -> Problem:
    """An anchor, an alias or a tag: a meaning that YAML gives to the first character of a value."""
    rest = position.source.line(position.line)[position.column - 1 :]
    text = re.split(r"[,\]}]|\s#", rest, maxsplit=1)[0].strip()
    sign = text[:1]
    kind = {"&": "an anchor", "*": "an alias"}.get(sign, "a tag")
    message = f"a leading '{sign}' makes this {kind} of YAML, which is not supported."
    quotes = f"Put text that starts with '{sign}' in quotes: '{text[:60]}'."
    reuse = "To use a value twice, write a param ('$name'), an entry of 'blocks', or 'extends'."
    if re.match(r"&\w+\s*[\[{]", rest):
        return Problem(message, position, path, reuse)
    is_name = re.fullmatch(r"[&*]\w+", text) is not None
    return Problem(message, position, path, f"{quotes} {reuse}" if is_name else quotes)


def _open_bracket(text: str) -> Any:
    """The token of the last `[` or `{` that is not closed, or None."""
    opened: list[Any] = []
    with suppress(yaml.YAMLError, ValueError, OverflowError):
        for token in yaml.scan(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
                opened.append(token)
            elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken) and opened:
                opened.pop()
    return opened[-1] if opened else None
