"""What the document can't say of a valid request, for dev/contract.

A format is a name in the document; here is how texts of it are made. And some parameters exclude one another.
"""

import hashlib
import json
import string

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

LETTERS = st.text(alphabet=string.ascii_letters + string.digits + "äß世", min_size=1, max_size=12)

# What was answered as a receipt is longer than what is made up.
RECEIPT = 64

# Words without commas, which would be several choices.
schemathesis.openapi.format("loggerhub-choice", LETTERS)
schemathesis.openapi.format("loggerhub-text", LETTERS)
schemathesis.openapi.format(
    "loggerhub-query",
    st.one_of(
        LETTERS,
        LETTERS.map(lambda word: f'"{word}"'),
        LETTERS.map(lambda word: f"first -{word}"),
        LETTERS.map(lambda word: f"service:{word}"),
        LETTERS.map(lambda word: f"abcd{word}*"),
        LETTERS.map(lambda word: f"status:>=500 {word} or level:(warn OR error)"),
    ),
)
# What every event has.
schemathesis.openapi.format("loggerhub-same", st.sampled_from(["service", "level", "none"]))
schemathesis.openapi.format(
    "loggerhub-question",
    st.tuples(
        LETTERS,
        st.sampled_from(
            [
                "",
                " | count",
                " | count by service, status",
                " | top 5 level",
                " | timechart count by level",
                " | stats count, p95(latency_ms), uniq(service) by application",
                " | grep -v /x.?y/i | fields service, status | limit 5",
            ]
        ),
    ).map("".join),
)
schemathesis.openapi.format("loggerhub-interval", st.sampled_from(["30s", "5m", "2h", "1d"]))
schemathesis.openapi.format("loggerhub-field", LETTERS.map(lambda word: "a_" + word.encode("ascii", "ignore").decode()))
schemathesis.openapi.format(
    "loggerhub-time",
    st.one_of(
        st.datetimes().map(lambda time: f"{time.year:04}-{time:%m-%dT%H:%M:%SZ}"),
        st.dates().map(lambda day: f"{day.year:04}-{day:%m-%d}"),
        st.integers(min_value=1, max_value=999).map(lambda minutes: f"-{minutes}m"),
        st.integers(min_value=10**9, max_value=2 * 10**18).map(str),
        st.sampled_from(["now", "now-1h", "now-1d/d", "today", "yesterday", "2h30m", "now/w"]),
    ),
)
schemathesis.openapi.format(
    "loggerhub-lines",
    st.lists(LETTERS.map(lambda word: '{"message":"%s"}\n' % word), min_size=1, max_size=5).map("".join),
)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes a request valid that the document says is: what is wrong on purpose stays so."""
    # A choice that is wrong because it is a text and no list is one of one, and nobody could refuse it.
    if case.meta is not None and case.meta.generation.mode == GenerationMode.NEGATIVE and case.query:
        if any(isinstance(case.query.get(choice), str) for choice in ("service", "level")):
            case.query["nobodys"] = "1"
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    # Each is made for what was answered before: a receipt comes by a link, or is none.
    case.query.pop("cursor", None)
    if len(case.query.get("receipt", "")) < RECEIPT:
        case.query.pop("receipt", None)
    # Of a range of centuries, an interval would make too many bars.
    if any(limit in case.query for limit in ("from", "since", "to")):
        case.query.pop("interval", None)
    # Two words for one limit.
    if "from" in case.query:
        case.query.pop("since", None)
    # The body is not compressed.
    case.headers.pop("Content-Encoding", None)
    # Another body under a key is refused.
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = hashlib.sha256(repr(case.body).encode()).hexdigest()
    # All or nothing refuses what is else kept as a dead letter.
    if isinstance(case.body, list):
        case.query.pop("atomic", None)
    if case.operation.definition.raw["operationId"] == "purgeDeadLetters":
        filters = [name for name in case.query if name != "all"]
        if filters:
            case.query.pop("all", None)
        else:
            case.query["all"] = "true"


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
