"""Two users' sessions in mode ``mailbox`` on few connections: no octet of one is ever another one's (THREATS A31).

The whole core at work, without sockets: sessions, the book, and the barrier between two sessions.  Everything that a
client says bears its mark, and a server marks all that it says with whose command it has seen last.  Clients come,
go, and break off anywhere; servers answer in any order, say things unasked, in any chunks, and break off, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from imapgate.limits import DEFAULTS
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.pooling.book import Book
from imapgate.pooling.connection import Check, Connection, Dial, Discard, Key, Lend, Order, Refuse, Reset, Terms
from imapgate.session import effects as wants
from imapgate.session.barrier import Barrier, Finding
from imapgate.session.link import Link
from tests.session.peers import Receiver, Server
from tests.session.playbook import logged_in

TERMS = Terms(size=2, keep=1, idle=50.0, wait=20.0, check=5.0)
USERS = (b"alice", b"bob")
COMPLETIONS = st.sampled_from([b"OK", b"OK", b"OK", b"NO", b"BAD"])
WHICH = st.integers(0, 9)


class Carrier:
    """One upstream connection: its server, and whose it is."""

    def __init__(self) -> None:
        self.server = Server()
        self.barrier = Barrier(Link(DEFAULTS))
        self.barrier.link.capabilities = b"IMAP4rev1 IDLE UNSELECT"
        self.user: Client | None = None
        self.seen = b"nobody"  # whose command the server has seen last

    def write(self, data: bytes) -> None:
        """What the gate sends; the server's answers will bear the mark in it."""
        self.server.take(data)
        for command in self.server.seen:
            if command.text in (b"NOOP", b"UNSELECT"):
                self.seen = b"nobody"
            elif b" m-" in command.text:
                self.seen = command.text.rsplit(b" ", 1)[1]


class Client:
    """One session, and what its client has got."""

    def __init__(self, user: bytes, number: int) -> None:
        self.mark = b"m-%b-%d" % (user, number)
        self.key = Key("legacy", 0, user, 0)
        self.session = logged_in(mode=PoolMode.MAILBOX, capabilities=b"IMAP4rev1 IDLE UNSELECT")
        self.receiver = Receiver()
        self.carrier: Connection | None = None
        self.waits = False
        self.gone = False
        self.number = 0
        self.idle = False


class Gate(RuleBasedStateMachine):
    """Clients, sessions, the book, connections, servers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.book = Book(3, lambda: 0.5)
        self.clients: list[Client] = []
        self.connections: list[Connection] = []
        self.orders: deque[Order] = deque()

    # --- the shell ----------------------------------------------------------------------------------------

    def perform(self, client: Client, effects: Sequence[wants.Effect]) -> None:
        """Do what a session wants."""
        for effect in effects:
            match effect:
                case wants.SendClient(data):
                    client.receiver.take(data)
                case wants.SendUpstream(data):
                    assert client.carrier is not None, "written to what was given back"
                    client.carrier.carrier.write(data)
                case wants.Ask():
                    client.waits = True
                    self.follow(self.book.ask(client, client.key, TERMS, self.now, fresh=False))
                case wants.Release(selected):
                    self.let_go(client, clean=True, selected=selected)
                case wants.Close(side):
                    if side is wants.Side.CLIENT:
                        client.gone = True
                        self.follow(self.book.leave(client.key))
                    elif client.waits:
                        client.waits = False
                        self.follow(self.book.cancelled(client, self.now))
                    elif client.carrier is not None:
                        self.let_go(client, clean=False, selected=False)
                case _:
                    pass

    def let_go(self, client: Client, *, clean: bool, selected: bool) -> None:
        """A session has no connection any more."""
        connection, client.carrier = client.carrier, None
        assert connection is not None
        if clean:
            assert not connection.carrier.server.owes
            assert connection.carrier.barrier.link.scanner.clean
            assert client.receiver.between, "given back in the middle of a response"
        connection.carrier.user = None
        orders = self.book.released(connection, self.now, clean=clean)
        if isinstance(orders[0], Reset):
            assert selected is connection.carrier.server.selected
            connection.carrier.write(connection.carrier.barrier.reset(selected=selected))
        else:
            self.follow(orders)

    def follow(self, orders: Sequence[Order]) -> None:
        """Do what the book orders; what comes of it is queued behind."""
        begin = not self.orders
        self.orders.extend(orders)
        while begin and self.orders:
            order = self.orders[0]
            match order:
                case Dial(connection):
                    connection.carrier = Carrier()
                    self.connections.append(connection)
                case Lend(connection, ticket):
                    assert isinstance(ticket, Client)
                    self.grant(ticket, connection)
                case Check(connection):
                    connection.carrier.write(connection.carrier.barrier.check())
                case Refuse(ticket):
                    assert isinstance(ticket, Client)
                    ticket.waits = False
                    self.perform(ticket, ticket.session.answered(wants.Failed(Failure.BUSY)))
                case Discard() | Reset():
                    pass
            self.orders.popleft()

    def grant(self, client: Client, connection: Connection) -> None:
        """A connection is a client's."""
        assert client.waits, "lent to who does not wait"
        assert not client.gone
        assert connection.key == client.key
        assert connection.carrier.user is None
        assert not connection.carrier.server.owes
        assert not connection.carrier.server.selected, "the last one's mailbox is selected"
        client.waits, client.carrier, connection.carrier.user = False, connection, client
        self.perform(
            client, client.session.answered(wants.Granted(connection.carrier.barrier.link, mode=PoolMode.MAILBOX))
        )

    # --- clients ------------------------------------------------------------------------------------------

    @initialize(how_many=st.integers(1, 4))
    def begin(self, how_many: int) -> None:
        """Some sessions of two users."""
        for _ in range(how_many):
            self.come(0)

    @precondition(lambda self: len(self.clients) < 12)
    @rule(user=st.integers(0, 1))
    def come(self, user: int) -> None:
        """A client logs in; every other one is somebody else."""
        client = Client(USERS[(user + len(self.clients)) % 2], len(self.clients))
        self.clients.append(client)
        self.book.enter(client.key, TERMS)

    @rule(
        which=WHICH,
        verbs=st.lists(st.sampled_from(["CREATE", "SELECT", "CLOSE", "IDLE", "APPEND"]), min_size=1, max_size=3),
    )
    def command(self, which: int, verbs: list[str]) -> None:
        """A client gives commands, which all bear its mark."""
        for verb in verbs:
            client = self.client(which)
            if client is None or client.idle:
                return
            client.number += 1
            text = {"CLOSE": b"CLOSE", "IDLE": b"IDLE"}.get(verb, verb.encode() + b" " + client.mark)
            if verb == "APPEND":
                text = b"APPEND x {%d+}\r\n%b" % (len(client.mark) + 1, b" " + client.mark)
            client.idle = verb == "IDLE"
            self.perform(client, client.session.client_received(b"t%d %b\r\n" % (client.number, text)))

    @rule(which=WHICH)
    def done(self, which: int) -> None:
        """A client idles no more."""
        client = self.client(which)
        if client is not None and client.idle:
            client.idle = False
            self.perform(client, client.session.client_received(b"DONE\r\n"))

    @rule(which=WHICH, how=st.sampled_from(["lost", "logout", "leave"]))
    def go(self, which: int, how: str) -> None:
        """A client breaks off, or leaves."""
        client = self.client(which)
        if client is not None and how == "lost":
            self.perform(client, client.session.client_lost())
        elif client is not None and how == "leave":
            self.perform(client, client.session.leave(b"bye"))
        elif client is not None and not client.idle:
            self.perform(client, client.session.client_received(b"x LOGOUT\r\n"))

    @precondition(lambda self: len(self.clients) < 12)
    @rule(which=WHICH, how=st.sampled_from(["lost", "logout", "leave"]))
    def relieve(self, which: int, how: str) -> None:
        """A client with a mailbox selected goes, and another session of its user takes over."""
        client = self.client(which)
        if client is not None:
            self.command(which, ["SELECT"])
            self.all_serve(which)
            self.come(USERS.index(client.key.user) + len(self.clients))
            self.go(which, how)
            self.all_serve(which)
            self.command(-1, ["CREATE"])

    def client(self, which: int) -> Client | None:
        """One of those who are here."""
        here = [client for client in self.clients if not client.gone]
        return here[which % len(here)] if here else None

    # --- servers ------------------------------------------------------------------------------------------

    @rule(which=WHICH, completion=COMPLETIONS, unasked=st.booleans(), most=st.sampled_from([3, 20, 1000]))
    def serve(self, which: int, completion: bytes, unasked: bool, most: int) -> None:
        """A server does something, and some of what it has said arrives."""
        if not self.connections:
            return
        connection = self.connections[which % len(self.connections)]
        carrier: Carrier = connection.carrier
        server = carrier.server
        if unasked:
            server.say(b"* LIST () {%d}\r\n%b\r\n" % (len(carrier.seen), carrier.seen))
        elif server.asked:
            server.ask()
        elif server.idle_asked:
            server.answer_idle(b"+ idling")
        elif server.pending:
            ours = server.pending[0].text in (b"NOOP", b"UNSELECT")
            if server.pending[0].text == b"UNSELECT":
                server.selected = False
            server.complete(0, (b"OK" if ours else completion) + b" done " + carrier.seen)
        self.deliver(connection, most)

    def deliver(self, connection: Connection, most: int) -> None:
        """Some of what a server has said arrives, wherever its connection is."""
        carrier: Carrier = connection.carrier
        stage = connection.stage.value
        if stage == "connecting":
            self.opened(connection)
            return
        data = carrier.server.deliver(most)
        if stage == "closing":
            self.lose(connection)
        elif data and carrier.user is not None:
            self.perform(carrier.user, carrier.user.session.upstream_received(data))
        elif data:
            found = carrier.barrier.received(data)
            if found is Finding.CLEAN:
                self.follow(self.book.proved(connection, self.now))
            elif found is Finding.BROKEN:
                self.lose(connection)

    def opened(self, connection: Connection) -> None:
        """It is open, and the asker's."""
        client = connection.ticket
        assert isinstance(client, Client)
        self.book.connected(connection, 0, self.now)
        self.grant(client, connection)

    @rule(which=WHICH)
    def all_serve(self, which: int) -> None:
        """Every server answers what it has got, and it arrives."""
        for number in range(len(self.connections)):
            for _ in range(3):
                self.serve(number + which, b"OK", False, 1000)

    @precondition(lambda self: self.connections)
    @rule(which=WHICH)
    def cut(self, which: int) -> None:
        """A server breaks off."""
        self.lose(self.connections[which % len(self.connections)])

    def lose(self, connection: Connection) -> None:
        """A connection is gone."""
        client: Client | None = connection.carrier.user
        ticket = connection.ticket if connection.stage.value == "connecting" else None
        self.connections.remove(connection)
        connection.carrier.user = None
        self.follow(self.book.lost(connection, self.now))
        if client is not None:
            client.carrier = None
            self.perform(client, client.session.upstream_lost(Failure.LOST))
        elif isinstance(ticket, Client) and ticket.waits:
            ticket.waits = False
            self.perform(ticket, ticket.session.answered(wants.Failed(Failure.REFUSED)))

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def time(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.follow(self.book.ticked(self.now))

    # --- what always holds --------------------------------------------------------------------------------

    @invariant()
    def everybody_has_his_own(self) -> None:
        """No client has got a mark of another one: of another user's never, of another session's neither."""
        for client in self.clients:
            for response in client.receiver.responses:
                if b"m-" in response:
                    assert client.mark in response, (client.mark, response)

    @invariant()
    def each_has_at_most_one(self) -> None:
        """A connection is one session's, a session has one connection or waits, and who waits is known to the book."""
        holders = [connection.carrier.user for connection in self.connections if connection.carrier.user is not None]
        assert len(holders) == len(set(holders))
        for client in self.clients:
            assert (client in holders) is (client.carrier is not None)
            assert not (client.waits and client.carrier is not None)
            assert not (client.gone and (client.waits or client.carrier is not None))
        assert self.book.total == len(self.connections) <= 3
        waiting = [client for client in self.clients if client.waits]
        assert len(waiting) == self.book.waiting + len(self.book.dialling)

    def teardown(self) -> None:
        """All go; nothing is left."""
        for client in self.clients:
            if not client.gone:
                self.perform(client, client.session.client_lost())
        while self.connections:
            self.lose(self.connections[0])
        assert self.book.rows() == []


TestGate = Gate.TestCase
TestGate.settings = settings(settings(), stateful_step_count=60, max_examples=2 * settings().max_examples)
