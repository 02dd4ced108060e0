//! Whether anything answers at all: of a server that is not there a person must hear at once, not when retries ran out.
//!
//! Until the first datagram arrives, the kernel keeps what ICMP says of the first socket's requests (IP_RECVERR,
//! ip(7)). Nothing is sent for it. Only where the caller asks for it, and of no cost once something has arrived.

use std::io::ErrorKind;

use tftpbench_net::clock;

use super::Worker;
use crate::endpoints::Via;
use crate::notice::Notice;

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
        let own = self.clients.get(FIRST_KEY).and_then(|client| match &client.via {
            Via::Own(socket) => Some(socket),
            Via::Shared { .. } => None,
        });
        let Some(socket) = self.endpoints.shared.first().map(|shared_socket| &shared_socket.socket).or(own)
        else {
            return;
        };
        // A caller that has gone needs no notice.
        if self.heard {
            let _ = socket.keep_errors(false);
            let _ = self.notices.send((Notice::Answered, clock::monotonic_ns()));
            self.awaits_answer = false;
        } else {
            while let Some((peer, error)) = socket.take_error() {
                if peer == self.config.server && error.kind() == ErrorKind::ConnectionRefused {
                    let _ = self.notices.send((Notice::Refused, clock::monotonic_ns()));
                }
            }
        }
    }
}
