//! Whether anything answers at all: of a server that is not there a person must hear at once, not when retries ran out.
//!
//! Until the first datagram arrives, the kernel keeps what ICMP says of the first socket's requests (IP_RECVERR,
//! ip(7)). Nothing is sent for it. Only where the caller asks for it, and of no cost once something has arrived.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tftpbench_net::{Socket, clock};

use super::Worker;
use crate::notice::Notice;

/// What ICMP says where no datagram can arrive: of the port, of the host, of the network (icmp(7)).
const UNREACHABLE: [ErrorKind; 3] =
    [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
/// The slab's first key: that of the first transfer.
const FIRST_KEY: usize = 0;

impl Worker<'_> {
    /// Called once, before the first transfer starts.
    pub(super) fn watch_for_answer(&mut self) {
        if self.awaits_answer
            && let Some(socket) = self.endpoints.first()
        {
            // A kernel that can't do it leaves the notice that nothing has answered.
            let _ = socket.keep_errors(true);
        }
    }

    /// Called once a turn while nothing has arrived.
    pub(super) fn look_for_answer(&mut self) {
        let own = self.clients.get(FIRST_KEY).and_then(|client| client.via.own_socket());
        let socket = self.endpoints.shared.first().map(|shared_socket| &shared_socket.socket).or(own);
        // A caller that has gone needs no notice.
        if self.heard {
            if let Some(socket) = socket.filter(|_| !self.config.brake.stops) {
                let _ = socket.keep_errors(false);
            }
            let _ = self.notices.send((Notice::Answered, clock::monotonic_ns()));
            self.awaits_answer = false;
        } else if self.refused || socket.is_some_and(|socket| is_refused(socket, self.config.server)) {
            let _ = self.notices.send((Notice::Refused, clock::monotonic_ns()));
        }
    }

    /// Called some 20 times a second, where a load is to end once its server has gone.
    pub(super) fn watch_for_refusal(&mut self) {
        if !self.config.brake.stops || self.awaits_answer {
            return;
        }
        if std::mem::take(&mut self.refused) {
            let _ = self.notices.send((Notice::Unreachable, clock::monotonic_ns()));
        }
        let own = self.clients.iter().next().and_then(|(_, client)| client.via.own_socket());
        let shared = self.endpoints.shared.first().map(|shared_socket| &shared_socket.socket);
        let Some(socket) = shared.or(own) else { return };
        // What an earlier request of this socket met is kept from now on only: the next look finds it.
        let _ = socket.keep_errors(true);
        if is_refused(socket, self.config.server) {
            let _ = self.notices.send((Notice::Unreachable, clock::monotonic_ns()));
        }
    }
}

/// Whether a request to the server came back: only those go to its listening port. That a transfer's port is closed
/// after its last ACK is usual.
fn is_refused(socket: &Socket, server: SocketAddr) -> bool {
    let mut refused = false;
    while let Some((peer, error)) = socket.take_error() {
        refused |= peer == server && UNREACHABLE.contains(&error.kind());
    }
    refused
}
