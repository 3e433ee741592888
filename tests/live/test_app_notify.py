# SPDX-License-Identifier: BSD-2-Clause
"""Notifications: who they are from.

Guards issue 3: a client compares a notification's process id with the one that it was told at login, to leave its own aside.
"""
import pytest


def heard(conn):
    """The senders of what *conn* has been notified of so far."""
    conn.execute("SELECT 1")
    return [n.pid for n in conn.heard]


def listener(proxy):
    conn = proxy.connect("single")
    conn.heard = []
    conn.add_notify_handler(conn.heard.append)
    conn.execute("LISTEN news")
    return conn


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_ones_own_notification_is_known(new_proxy, mode):
    proxy = new_proxy({"database:single": {"pool_mode": mode}})
    with listener(proxy) as a, listener(proxy) as b:
        a.execute("NOTIFY news")
        assert heard(a) == [a.info.backend_pid]
        (sender,) = heard(b)
        assert sender != b.info.backend_pid
        if mode == "session":
            assert sender == a.info.backend_pid


def test_another_sender_is_never_taken_for_oneself(new_proxy):
    """The process that sent it may have worked for the listener before."""
    proxy = new_proxy({"proxy": {"workers": 1}, "database:single": {"default_pool_size": 2}})
    with proxy.connect("single") as sender, listener(proxy) as a:
        for _ in range(3):
            sender.execute("NOTIFY news")
        senders = heard(a)
        assert len(senders) == 3 and a.info.backend_pid not in senders
