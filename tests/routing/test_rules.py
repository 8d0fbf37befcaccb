"""Rules in order, and what they make of a look-up."""

from __future__ import annotations

import ipaddress
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from imapgate.errors import ConfigurationError
from imapgate.model.pool_mode import PoolMode
from imapgate.routing.lookup import Asked, Found, LookupFailed
from imapgate.routing.rules import Route, Router, Rule, Unroutable

UPSTREAMS = frozenset({"legacy", "new", "third"})
ALICE = Asked("public", "imap.example.org", "alice@example.org", "192.0.2.7")


class Lookup:
    """A look-up that knows some users, or fails."""

    def __init__(self, known: Mapping[str, Found] | None = None) -> None:
        self.known = known
        self.asked: list[str] = []

    async def find(self, asked: Asked) -> Found | None:
        """Say what is known."""
        self.asked.append(asked.user)
        if self.known is None:
            raise LookupFailed("the database is down")
        return self.known.get(asked.user)


def admissible(user: str) -> bool:
    """Whether a user may have such a name."""
    return user != "" and user.isascii() and not set(user) & set(" ;'\"\r\n")


def router(*rules: Rule) -> Router:
    """A router that sends everybody else to ``legacy``."""
    return Router(rules, "legacy", UPSTREAMS, admissible)


def now(coroutine: Coroutine[Any, Any, Route]) -> Route:
    """What a route is, where nothing has to be waited for."""
    results: list[Route] = []
    failures: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, failures.append)
    for failure in failures:
        failure.raiseException()
    (route,) = results
    return route


def unroutable(coroutine: Coroutine[Any, Any, Route]) -> tuple[bool, str]:
    """Why there is no route: whether for now only, and the text for the log."""
    with pytest.raises(Unroutable) as caught:
        now(coroutine)
    return caught.value.temporary, caught.value.text


# --- conditions -------------------------------------------------------------------------------------------------------


def test_the_default() -> None:
    """Whom no rule is about goes to the default."""
    assert now(router().route(ALICE)) == Route("legacy")
    assert now(router(Rule("r", user=("bob",), upstream="new")).route(ALICE)) == Route("legacy")


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule("r"), True),
        (Rule("r", listener=("public",)), True),
        (Rule("r", listener=("inside", "public")), True),
        (Rule("r", listener=("pub*",)), False),
        (Rule("r", server_name=("imap.example.org",)), True),
        (Rule("r", server_name=("*.Example.ORG",)), True),
        (Rule("r", server_name=("example.org",)), False),
        (Rule("r", user=("alice@example.org",)), True),
        (Rule("r", user=("b*", "a*")), True),
        (Rule("r", user=("Alice*",)), False),
        (Rule("r", user=("alice",)), False),
        (Rule("r", domain=("example.org",)), True),
        (Rule("r", domain=("EXAMPLE.*",)), True),
        (Rule("r", domain=("alice@example.org",)), False),
        (Rule("r", network=(ipaddress.ip_network("192.0.2.0/24"),)), True),
        (Rule("r", network=(ipaddress.ip_network("2001:db8::/32"),)), False),
        (Rule("r", listener=("public",), user=("a*",), domain=("example.org",)), True),
        (Rule("r", listener=("inside",), user=("a*",), domain=("example.org",)), False),
        (Rule("r", listener=("public",), user=("a*",), domain=("example.net",)), False),
        (Rule("r", server_name=("*.net",), user=("a*",)), False),
    ],
)
def test_conditions(rule: Rule, matches: bool) -> None:
    """One pattern of each condition is enough, but each condition must hold."""
    assert (rule.matches_connection(ALICE) and rule.matches_user(ALICE.user)) == matches


@pytest.mark.parametrize(
    ("address", "network", "inside"),
    [
        ("192.0.2.7", "192.0.2.0/24", True),
        ("::ffff:192.0.2.7", "192.0.2.0/24", True),
        ("192.0.3.7", "192.0.2.0/24", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("fe80::1%eth0", "fe80::/10", True),
        (None, "0.0.0.0/0", False),
    ],
)
def test_networks(address: str | None, network: str, inside: bool) -> None:
    """An address in each of its forms; who comes by a Unix socket is in no network."""
    rule = Rule("r", network=(ipaddress.ip_network(network),))
    assert rule.matches_connection(ALICE._replace(address=address)) == inside


def test_conditions_on_what_is_not_there() -> None:
    """Without SNI or a domain, no pattern matches, not even ``*``."""
    assert not Rule("r", server_name=("*",)).matches_connection(ALICE._replace(server_name=None))
    assert not Rule("r", domain=("*",)).matches_user("alice")
    assert not Rule("r", domain=("*",)).matches_user("alice@")
    assert Rule("r", domain=("example.org",)).matches_user("a@b@Example.org")


def test_the_first_that_matches_decides() -> None:
    """Rules are looked at in order, and those behind the first that matches not at all."""
    lookup = Lookup({})
    made = router(
        Rule("one", user=("b*",), upstream="third"),
        Rule("two", user=("a*",), upstream="new"),
        Rule("three", lookup=lookup, upstream="third"),
    )
    assert now(made.route(ALICE)) == Route("new")
    assert now(made.route(ALICE._replace(user="bob"))) == Route("third")
    assert now(made.route(ALICE._replace(user="carol"))) == Route("legacy")
    assert lookup.asked == ["carol"]


# --- what follows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewrite", "user", "name"),
    [
        ("{local}", "alice@example.org", "alice"),
        ("{local}", "alice", "alice"),
        ("{local}+{domain}", "alice@example.org", "alice+example.org"),
        ("{user}@example.net", "alice", "alice@example.net"),
        ("shared", "alice", "shared"),
    ],
)
def test_rewriting(rewrite: str, user: str, name: str) -> None:
    """A rule makes the name upstream of parts of the name that was given."""
    assert now(router(Rule("r", rewrite=rewrite)).route(ALICE._replace(user=user))) == Route("legacy", name)


def test_a38_names_are_no_templates() -> None:
    """A38: what a user's name has in it is not rewritten again."""
    made = Router([Rule("r", rewrite="{local}")], "legacy", UPSTREAMS, lambda user: True)
    assert now(made.route(ALICE._replace(user="{domain}{user}@example.org"))).user == "{domain}{user}"


def test_all_that_a_rule_says() -> None:
    """A rule overrides the user's name, the pool mode, and whether and when the user may log in."""
    rule = Rule("r", upstream="new", pool_mode=PoolMode.MAILBOX, nologin="Moving house", delay_until=5.0)
    assert now(router(rule).route(ALICE)) == Route("new", None, PoolMode.MAILBOX, 5.0, "Moving house")


def test_what_is_found_goes_first() -> None:
    """What a look-up says of a user goes before what its rule says of all, and the rule has the rest."""
    lookup = Lookup(
        {
            ALICE.user: Found("third", "al", PoolMode.SESSION, "Not today", 0.0),
            "bob": Found(),
        }
    )
    rule = Rule(
        "r",
        upstream="new",
        lookup=lookup,
        rewrite="x-{local}",
        pool_mode=PoolMode.MAILBOX,
        nologin="Moving house",
        delay_until=5.0,
    )
    assert now(router(rule).route(ALICE)) == Route("third", "al", PoolMode.SESSION, 0.0, "Not today")
    assert now(router(rule).route(ALICE._replace(user="bob"))) == Route(
        "new", "x-bob", PoolMode.MAILBOX, 5.0, "Moving house"
    )


def test_found_without_an_upstream() -> None:
    """Where neither the look-up nor its rule names an upstream, it is the default."""
    rule = Rule("r", lookup=Lookup({ALICE.user: Found(nologin="Not today")}))
    assert now(router(rule).route(ALICE)) == Route("legacy", nologin="Not today")


# --- look-ups that find nothing, fail, or find nonsense ---------------------------------------------------------------


def test_nothing_found() -> None:
    """A look-up that finds nothing leaves the client to the next rule."""
    nothing, something = Lookup({}), Lookup({ALICE.user: Found("third")})
    made = router(Rule("one", lookup=nothing, upstream="new"), Rule("two", lookup=something))
    assert now(made.route(ALICE)) == Route("third")
    assert nothing.asked == something.asked == [ALICE.user]


def test_a_failure_is_not_nothing() -> None:
    """A look-up that fails ends the search: an outage sends nobody to another upstream."""
    other = Lookup({ALICE.user: Found("third")})
    made = router(Rule("one", lookup=Lookup(None)), Rule("two", lookup=other), Rule("three", upstream="new"))
    assert unroutable(made.route(ALICE)) == (True, "one: the database is down")
    assert other.asked == []


def test_an_upstream_that_there_is_not() -> None:
    """A name from a look-up that is no upstream's is a fault of the operator's, and is logged with the rule."""
    rule = Rule("routing.rule[0]", lookup=Lookup({ALICE.user: Found("lagacy")}))
    assert unroutable(router(rule).route(ALICE)) == (True, "routing.rule[0]: there is no upstream 'lagacy'")


def test_a38_a_name_from_a_look_up() -> None:
    """A38: a name that comes from a look-up passes the allow-list, or nobody logs in with it."""
    rule = Rule("routing.rule[0]", lookup=Lookup({ALICE.user: Found(user="a\r\nb")}))
    assert unroutable(router(rule).route(ALICE)) == (True, "routing.rule[0]: no admissible user name: 'a\\r\\nb'")


def test_a38_a_name_that_a_rule_makes() -> None:
    """A38: so does a name that a rule makes; that nothing is left of it lies with who gave such a name."""
    rule = Rule("routing.rule[0]", rewrite="{local}")
    assert unroutable(router(rule).route(ALICE._replace(user="@example.org"))) == (
        False,
        "routing.rule[0]: no admissible user name: ''",
    )


def test_a38_no_look_up_for_what_is_no_user() -> None:
    """A38: a name that no user has is not looked up, nor written to the log."""
    lookup = Lookup({})
    made = router(Rule("r", lookup=lookup))
    assert unroutable(made.route(ALICE._replace(user="x' OR ''='"))) == (False, "no admissible user name")
    assert lookup.asked == []


# --- before the user is known -----------------------------------------------------------------------------------------

UNNAMED = ALICE._replace(user="")


def test_unnamed() -> None:
    """Where listener, SNI and network alone choose, a client is routed whose user is not known yet."""
    made = router(
        Rule("one", listener=("inside",), lookup=Lookup({})),
        Rule("two", server_name=("imap.example.org",), upstream="new", pool_mode=PoolMode.MAILBOX),
        Rule("three", user=("*",), upstream="third"),
    )
    assert made.route_unnamed(UNNAMED) == Route("new", pool_mode=PoolMode.MAILBOX)
    assert now(made.route(UNNAMED)) == Route("new", pool_mode=PoolMode.MAILBOX)
    assert router().route_unnamed(UNNAMED) == Route("legacy")


@pytest.mark.parametrize(
    "rule",
    [
        Rule("r", user=("*",), upstream="new"),
        Rule("r", user=("bob",), upstream="new"),
        Rule("r", domain=("example.org",), upstream="new"),
        Rule("r", lookup=Lookup({}), upstream="new"),
        Rule("r", rewrite="{local}", upstream="new"),
    ],
)
def test_unnamed_but_it_depends(rule: Rule) -> None:
    """Where the user's name might matter, a client that does not give it has no way."""
    made = router(rule, Rule("last", upstream="third"))
    assert unroutable(made.route(UNNAMED)) == (False, "r depends on the user")


conditions = st.builds(
    Rule,
    name=st.just("r"),
    listener=st.sampled_from([(), ("public",), ("inside",)]),
    server_name=st.sampled_from([(), ("imap.*",), ("mail.*",)]),
    user=st.sampled_from([(), ("a*",), ("bob",)]),
    network=st.sampled_from([(), (ipaddress.ip_network("192.0.2.0/24"),)]),
    upstream=st.sampled_from(["legacy", "new", "third"]),
)


@given(st.lists(conditions, max_size=6), st.sampled_from(["alice", "bob", "carol"]))
def test_unnamed_is_as_named(rules: list[Rule], user: str) -> None:
    """Where a client is routed without its user's name, it would be routed there under every name."""
    made = router(*rules)
    try:
        route = made.route_unnamed(UNNAMED)
    except Unroutable:
        return
    assert now(made.route(ALICE._replace(user=user))) == route


# --- configuration ----------------------------------------------------------------------------------------------------


def test_faults_of_the_configuration() -> None:
    """Rules that can never work are told at once, all of them."""
    with pytest.raises(ConfigurationError) as caught:
        Router(
            [Rule("one", upstream="lagacy"), Rule("two", rewrite="{lokal}@{domain}"), Rule("three", rewrite="{user")],
            "old",
            UPSTREAMS,
            admissible,
        )
    assert caught.value.problems == [
        "the default: there is no upstream 'old'",
        "one: there is no upstream 'lagacy'",
        "two: rewrite knows only {user}, {local} and {domain}",
        "three: rewrite knows only {user}, {local} and {domain}",
    ]
