from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkeep.secret import Secret

PLAIN = "eyJ-canary-4711"

pytestmark = pytest.mark.requirement("S13")


@dataclass(frozen=True)
class Holder:
    name: str
    token: Secret


@pytest.mark.parametrize("spec", ["", "s", ">40", "x", "!r", "{}"])
def test_no_format_specification_shows_it(spec: str) -> None:
    assert PLAIN not in format(Secret(PLAIN), spec)


@pytest.mark.parametrize(
    "show",
    [str, repr, ascii, "{}".format, "{!r}".format, "{:>30}".format, "%s".__mod__, "%r".__mod__, "%a".__mod__],
)
def test_no_way_of_printing_shows_it(show: Any) -> None:
    shown = show(Secret(PLAIN))
    assert PLAIN not in shown
    assert "***" in shown


@given(st.text(min_size=6))
def test_the_mask_tells_neither_value_nor_length(plain: str) -> None:
    assert repr(Secret(plain)) == repr(Secret(plain * 2))
    assert str(Secret(plain)) == str(Secret(plain * 2))


def test_reveal_gives_the_plain_value_and_a_secret_of_a_secret_is_the_same() -> None:
    assert Secret(PLAIN).reveal() == PLAIN
    assert Secret(Secret(PLAIN)).reveal() == PLAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled_alone_or_inside_something(protocol: int) -> None:
    for value in (Secret(PLAIN), [Secret(PLAIN)], Holder("alice", Secret(PLAIN))):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            pickle.dumps(value, protocol)
        assert PLAIN not in str(caught.value)


def test_json_refuses_it_as_a_value_and_as_a_key() -> None:
    for value in ({"token": Secret(PLAIN)}, {Secret(PLAIN): 1}, [Secret(PLAIN)]):
        with pytest.raises(TypeError) as caught:
            json.dumps(value)
        assert PLAIN not in str(caught.value)
    assert PLAIN not in json.dumps({"token": Secret(PLAIN)}, default=str)
    assert PLAIN not in json.dumps({"token": Secret(PLAIN)}, default=repr)


def test_copies_are_the_secret_itself() -> None:
    secret = Secret(PLAIN)
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_a_dataclass_that_holds_it_shows_the_mask() -> None:
    holder = Holder("alice", Secret(PLAIN))
    for shown in (holder, asdict(holder), astuple(holder), replace(holder, name="bob")):
        assert PLAIN not in repr(shown)


def test_a_traceback_with_its_locals_shows_the_mask() -> None:
    def fails(token: Secret) -> None:
        held = {"token": token, "pair": (token, token)}
        raise LookupError(token, held)

    with pytest.raises(LookupError) as caught:
        fails(Secret(PLAIN))
    inner = caught.tb.tb_next
    assert inner is not None
    frames = traceback.TracebackException(caught.type, caught.value, inner, capture_locals=True)
    shown = "".join(frames.format())
    assert "held =" in shown
    assert PLAIN not in shown


def test_a_pydantic_model_that_holds_it_shows_the_mask_and_dumps_no_json() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", __config__={"arbitrary_types_allowed": True}, token=(Secret, ...))
    held = model(token=Secret(PLAIN))
    assert PLAIN not in f"{held!r} {held} {held.model_dump()}"
    with pytest.raises(ValueError, match="Unable to serialize unknown type") as caught:
        held.model_dump_json()
    assert PLAIN not in str(caught.value)


def test_a_log_record_shows_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("app").debug("got %s and %r", Secret(PLAIN), Secret(PLAIN))
    assert "***" in caplog.text
    assert PLAIN not in caplog.text


def test_it_has_no_attributes_length_or_items_to_look_at() -> None:
    secret: Any = Secret(PLAIN)
    for look in (vars, len, iter, lambda value: value[0], lambda value: value + "x", bytes):
        with pytest.raises(TypeError):
            look(secret)


def test_it_cannot_be_changed() -> None:
    secret: Any = Secret(PLAIN)
    with pytest.raises(AttributeError, match="cannot be changed"):
        secret._value = "other"
    with pytest.raises(AttributeError):
        secret.other = "value"
    assert secret.reveal() == PLAIN


@given(st.text(), st.text())
def test_equal_values_are_equal_secrets_with_equal_hashes(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert hash(Secret(one)) == hash(Secret(one))


def test_it_equals_no_plain_string() -> None:
    assert Secret(PLAIN) != PLAIN
    assert {Secret(PLAIN): 1}.get(PLAIN) is None  # type: ignore[call-overload]  # that is the point


def test_only_the_empty_one_is_false() -> None:
    assert not Secret("")
    assert Secret(" ")


@pytest.mark.parametrize("value", [4711, b"canary", ["canary"]])
def test_anything_but_text_is_refused_without_showing_it(value: Any) -> None:
    with pytest.raises(TypeError, match="must be a str") as caught:
        Secret(value)
    assert repr(value) not in str(caught.value)
