"""A reply behind a proxy says what it would say without one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver import replies
from gserver.net.proxy_header import MAX_HEADER
from gserver.net.skip_header import SkipHeader
from gserver.replies.script import Script

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x03abc"

DIALOGUES = {
    name: script for name in replies.BY_NAME if (script := replies.named(name)).max_received
}
WORDS = st.one_of(
    st.binary(max_size=700),
    st.sampled_from(
        [b"HEAD / HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n", b"\0\0\0\x08\4\xd2\x16/"]
    ),
)


@pytest.mark.parametrize("script", DIALOGUES.values(), ids=DIALOGUES)
@given(header=st.sampled_from([V1, V2]), words=WORDS)
def test_words_behind_a_header_are_answered_as_words_without_one(
    script: Script, header: bytes, words: bytes
) -> None:
    assert SkipHeader(script).turn(header + words) == script.turn(words)


@pytest.mark.parametrize("script", DIALOGUES.values(), ids=DIALOGUES)
@given(words=st.one_of(WORDS, st.binary(max_size=20).map(lambda more: V1[:9] + more)))
def test_what_is_due_only_grows_and_ends_at_the_bound(script: Script, words: bytes) -> None:
    wrapped = SkipHeader(script)
    due = b""
    for end in range(len(words) + 1):
        turn = wrapped.turn(words[:end])
        assert turn.due.startswith(due)
        due = turn.due
    full = words.ljust(wrapped.max_received, b"x")
    assert wrapped.max_received == script.max_received + MAX_HEADER
    assert wrapped.turn(full).finished
