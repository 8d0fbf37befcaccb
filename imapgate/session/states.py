"""What state everything is in, as tables a stranger can read.

Three small machines stand side by side.  CONNECTION is the client's connection as RFC 3501 §3 draws
it.  SENDING is what the client's next octets are.  HEAD is what stands at the head of the upstream
connection, or that there is none: as long as it is not FREE, no other command can be written there.

Each table maps ``(state, event)`` to the next state; a cell that is missing cannot be, and says so by
raising the error its section names.  The diagrams in the documentation are drawn from these tables.
"""

from __future__ import annotations

from enum import Enum


class _State(Enum):
    """Members are singletons: identity is enough of a hash, and costs no call in Python."""

    __hash__ = object.__hash__


class Connection(_State):
    """The client's connection (RFC 3501 §3)."""

    CONNECTING = "connecting"
    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    LOGOUT = "logout"


class ConnectionEvent(_State):
    """What moves a connection on."""

    CONNECTED = "connected"
    LOGGED_IN = "login OK"
    SELECT_OK = "SELECT OK"
    SELECT_FAILED = "SELECT NO"
    DESELECTED = "CLOSE OK"
    ENDED = "BYE"


CONNECTION: dict[tuple[Connection, ConnectionEvent], Connection] = {
    (Connection.CONNECTING, ConnectionEvent.CONNECTED): Connection.NOT_AUTHENTICATED,
    (Connection.CONNECTING, ConnectionEvent.ENDED): Connection.LOGOUT,
    # STARTTLS: all that was known before it is forgotten, and the connection is as new
    (Connection.NOT_AUTHENTICATED, ConnectionEvent.CONNECTED): Connection.NOT_AUTHENTICATED,
    (Connection.NOT_AUTHENTICATED, ConnectionEvent.LOGGED_IN): Connection.AUTHENTICATED,
    (Connection.NOT_AUTHENTICATED, ConnectionEvent.ENDED): Connection.LOGOUT,
    (Connection.AUTHENTICATED, ConnectionEvent.SELECT_OK): Connection.SELECTED,
    (Connection.AUTHENTICATED, ConnectionEvent.SELECT_FAILED): Connection.AUTHENTICATED,
    (Connection.AUTHENTICATED, ConnectionEvent.DESELECTED): Connection.AUTHENTICATED,
    (Connection.AUTHENTICATED, ConnectionEvent.ENDED): Connection.LOGOUT,
    (Connection.SELECTED, ConnectionEvent.SELECT_OK): Connection.SELECTED,
    (Connection.SELECTED, ConnectionEvent.SELECT_FAILED): Connection.AUTHENTICATED,
    (Connection.SELECTED, ConnectionEvent.DESELECTED): Connection.AUTHENTICATED,
    (Connection.SELECTED, ConnectionEvent.ENDED): Connection.LOGOUT,
}


class Sending(_State):
    """What the client's next octets are."""

    LINE = "line"
    ARGUMENT = "argument literal"
    MESSAGE_ASKED = "message announced"
    MESSAGE = "message literal"
    SWALLOWED = "refused literal"
    SASL = "SASL answer"
    IDLE = "IDLE"
    NOTHING = "nothing"


class SendingEvent(_State):
    """What changes the meaning of the client's next octets."""

    ARGUMENT_ANNOUNCED = "{n} of an argument"
    MESSAGE_ANNOUNCED = "{n} of a message"
    REFUSED_ANNOUNCED = "{n+} of a refused command"
    LITERAL_ENDED = "last octet"
    ACCEPTED = "upstream's +"
    REFUSED_SYNCHRONISING = "refused {n}"
    REFUSED_NON_SYNCHRONISING = "refused {n+}"
    SASL_STARTED = "AUTHENTICATE"
    IDLE_STARTED = "IDLE"
    DIALOGUE_ENDED = "DONE, SASL over"
    STOPPED = "STARTTLS, BYE"


SENDING: dict[tuple[Sending, SendingEvent], Sending] = {
    (Sending.LINE, SendingEvent.ARGUMENT_ANNOUNCED): Sending.ARGUMENT,
    (Sending.LINE, SendingEvent.MESSAGE_ANNOUNCED): Sending.MESSAGE_ASKED,
    (Sending.LINE, SendingEvent.REFUSED_ANNOUNCED): Sending.SWALLOWED,
    (Sending.LINE, SendingEvent.SASL_STARTED): Sending.SASL,
    (Sending.LINE, SendingEvent.IDLE_STARTED): Sending.IDLE,
    (Sending.ARGUMENT, SendingEvent.LITERAL_ENDED): Sending.LINE,
    (Sending.MESSAGE_ASKED, SendingEvent.ACCEPTED): Sending.MESSAGE,
    (Sending.MESSAGE_ASKED, SendingEvent.REFUSED_SYNCHRONISING): Sending.LINE,
    (Sending.MESSAGE_ASKED, SendingEvent.REFUSED_NON_SYNCHRONISING): Sending.SWALLOWED,
    (Sending.MESSAGE, SendingEvent.LITERAL_ENDED): Sending.LINE,
    (Sending.SWALLOWED, SendingEvent.LITERAL_ENDED): Sending.LINE,
    (Sending.SASL, SendingEvent.DIALOGUE_ENDED): Sending.LINE,
    (Sending.IDLE, SendingEvent.DIALOGUE_ENDED): Sending.LINE,
    **{(state, SendingEvent.STOPPED): Sending.NOTHING for state in Sending},
}


class Head(_State):
    """What stands at the head of the upstream connection."""

    UNBOUND = "unbound"
    AWAITED = "connection awaited"
    FREE = "free"
    ASKED = "literal asked"
    FLOWING = "message flowing"
    IDLE_ASKED = "IDLE asked"
    IDLING = "idling"
    IDLE_ENDING = "DONE sent"
    IDLE_REFRESHING = "IDLE ended to be refreshed"
    IDLE_RESUMED = "IDLE asked again"


class HeadEvent(_State):
    """What moves the head on; CONTINUED is upstream's ``+``, COMPLETED the head's own tagged answer."""

    LEASE_ASKED = "connection asked"
    LEASED = "connection granted"
    LEASE_REFUSED = "connection refused"
    RELEASED = "connection given back"
    ASKED = "{n} sent"
    IDLE_SENT = "IDLE sent"
    CONTINUED_SEGMENT = "+, the rest sent"
    CONTINUED_LITERAL = "+, the next {n} sent"
    CONTINUED_MESSAGE = "+, message next"
    CONTINUED_IDLE = "+ of IDLE"
    WRITTEN = "last octet sent"
    DONE_SENT = "DONE sent"
    REFRESHED = "DONE sent, to go on"
    RESUMED = "IDLE sent again"
    COMPLETED = "tagged answer"


HEAD: dict[tuple[Head, HeadEvent], Head] = {
    (Head.UNBOUND, HeadEvent.LEASE_ASKED): Head.AWAITED,
    (Head.AWAITED, HeadEvent.LEASED): Head.FREE,
    (Head.AWAITED, HeadEvent.LEASE_REFUSED): Head.UNBOUND,
    (Head.FREE, HeadEvent.RELEASED): Head.UNBOUND,
    (Head.FREE, HeadEvent.ASKED): Head.ASKED,
    (Head.FREE, HeadEvent.IDLE_SENT): Head.IDLE_ASKED,
    (Head.ASKED, HeadEvent.CONTINUED_SEGMENT): Head.FREE,
    (Head.ASKED, HeadEvent.CONTINUED_LITERAL): Head.ASKED,
    (Head.ASKED, HeadEvent.CONTINUED_MESSAGE): Head.FLOWING,
    (Head.ASKED, HeadEvent.COMPLETED): Head.FREE,
    (Head.FLOWING, HeadEvent.ASKED): Head.ASKED,
    (Head.FLOWING, HeadEvent.WRITTEN): Head.FREE,
    (Head.FLOWING, HeadEvent.COMPLETED): Head.FLOWING,
    (Head.IDLE_ASKED, HeadEvent.CONTINUED_IDLE): Head.IDLING,
    (Head.IDLE_ASKED, HeadEvent.COMPLETED): Head.FREE,
    (Head.IDLING, HeadEvent.DONE_SENT): Head.IDLE_ENDING,
    (Head.IDLING, HeadEvent.COMPLETED): Head.FREE,
    (Head.IDLE_ENDING, HeadEvent.COMPLETED): Head.FREE,
    # the client goes on idling, and sees nothing of it
    (Head.IDLING, HeadEvent.REFRESHED): Head.IDLE_REFRESHING,
    (Head.IDLE_REFRESHING, HeadEvent.RESUMED): Head.IDLE_RESUMED,
    (Head.IDLE_REFRESHING, HeadEvent.COMPLETED): Head.FREE,
    (Head.IDLE_RESUMED, HeadEvent.CONTINUED_IDLE): Head.IDLING,
    (Head.IDLE_RESUMED, HeadEvent.COMPLETED): Head.FREE,
}
