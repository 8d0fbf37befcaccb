"""Where the states of ``imapgate.session.states`` stand in their diagrams; nothing else about them is told here."""

from __future__ import annotations

from statecharts import Layout

from imapgate.session.states import Connection, Head, Sending

CHARTS: dict[str, tuple[Layout, str]] = {
    "CONNECTION": (
        Layout(
            places={
                Connection.CONNECTING: (0, 0),
                Connection.NOT_AUTHENTICATED: (1.1, 0),
                Connection.AUTHENTICATED: (2.3, 0),
                Connection.SELECTED: (3.4, 0),
                Connection.LOGOUT: (3.4, 1),
            },
            everywhere=(2.3, 1),
            initial=Connection.CONNECTING,
        ),
        "The client's connection",
    ),
    "SENDING": (
        Layout(
            places={
                Sending.LINE: (1.45, 1),
                Sending.ARGUMENT: (0, 1),
                Sending.SASL: (0.2, -0.25),
                Sending.IDLE: (0.2, 2.25),
                Sending.MESSAGE: (2.9, -0.25),
                Sending.MESSAGE_ASKED: (3.1, 1),
                Sending.SWALLOWED: (2.9, 2.25),
                Sending.NOTHING: (1.45, 2.95),
            },
            bends={
                (Sending.LINE, Sending.ARGUMENT): 22,
                (Sending.ARGUMENT, Sending.LINE): 22,
                (Sending.LINE, Sending.MESSAGE_ASKED): 22,
                (Sending.MESSAGE_ASKED, Sending.LINE): 22,
                (Sending.LINE, Sending.SASL): 26,
                (Sending.SASL, Sending.LINE): 26,
                (Sending.LINE, Sending.IDLE): 26,
                (Sending.IDLE, Sending.LINE): 26,
                (Sending.LINE, Sending.SWALLOWED): 26,
                (Sending.SWALLOWED, Sending.LINE): 26,
            },
            shifts={
                (Sending.LINE, Sending.SASL): 0.62,
                (Sending.SASL, Sending.LINE): 0.4,
                (Sending.IDLE, Sending.LINE): 0.36,
                (Sending.LINE, Sending.SWALLOWED): 0.42,
                (Sending.SWALLOWED, Sending.LINE): 0.36,
            },
            everywhere=(0.2, 2.95),
            initial=None,
        ),
        "What the client's next octets are",
    ),
    "HEAD": (
        Layout(
            places={
                Head.UNBOUND: (-1.35, 0.4),
                Head.AWAITED: (-1.35, 1.6),
                Head.FREE: (0, 1),
                Head.ASKED: (1.35, -0.55),
                Head.FLOWING: (3.2, -0.35),
                Head.IDLE_ENDING: (2.45, 0.55),
                Head.IDLE_ASKED: (1.75, 1.85),
                Head.IDLING: (3.5, 1.7),
                Head.IDLE_REFRESHING: (3.1, 3.3),
                Head.IDLE_RESUMED: (0.9, 3.3),
            },
            bends={
                (Head.FREE, Head.ASKED): 40,
                (Head.ASKED, Head.FREE): 6,
                (Head.FLOWING, Head.FREE): 6,
                (Head.IDLING, Head.FREE): -14,
                (Head.FREE, Head.IDLE_ASKED): 8,
                (Head.IDLE_ASKED, Head.FREE): 22,
                (Head.IDLE_REFRESHING, Head.FREE): 16,
            },
            shifts={
                (Head.UNBOUND, Head.AWAITED): 0.35,
                (Head.AWAITED, Head.UNBOUND): 0.35,
                (Head.FREE, Head.ASKED): 0.4,
                (Head.ASKED, Head.FREE): 0.45,
                (Head.FLOWING, Head.FREE): 0.36,
                (Head.IDLE_ENDING, Head.FREE): 0.36,
                (Head.IDLING, Head.FREE): 0.36,
                (Head.FREE, Head.IDLE_ASKED): 0.55,
                (Head.IDLE_ASKED, Head.FREE): 0.3,
                (Head.IDLE_REFRESHING, Head.FREE): 0.2,
                (Head.IDLE_RESUMED, Head.IDLING): 0.68,
            },
            initial=None,
        ),
        "What stands at the head of the upstream connection",
    ),
}
