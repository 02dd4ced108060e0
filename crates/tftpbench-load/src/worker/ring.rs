//! What a worker does with a packet ring: it looks at the ring's memory for frames, and asks the kernel only to sleep.
//!
//! Datagrams to send wait until the ring is empty, or so many wait that another call costs nothing beside them: then one
//! call sends them all.

use tftpbench_net::{Frame, Received, Waited, clock};

use super::Worker;
use crate::endpoints::Via;
use crate::load_error::LoadError;

impl Worker<'_> {
    /// Handles the frames that have arrived, and returns the time; None where there are none.
    pub(super) fn read_ring(&mut self) -> Result<Option<u64>, LoadError> {
        let Some(mut arrivals) = self.arrivals.take() else { return Ok(None) };
        let frames = arrivals.receive();
        if frames == 0 {
            self.arrivals = Some(arrivals);
            return Ok(None);
        }
        let now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        let mut received = 0;
        for arrived in arrivals.iter() {
            let (from, to, payload, truncated) = match arrived.frame {
                Frame::Datagram { from, to, payload, truncated } => (from, to, payload, truncated),
                Frame::Unreachable { to, .. } => {
                    self.refused |= to == self.config.server;
                    continue;
                }
            };
            received += 1;
            let Some(key) = self.client_on_ring(to) else {
                // It came too late for its transfer, or from a stranger that guessed an address.
                self.faults.late_datagrams += 1;
                self.recorder.datagram(now_ns, payload.len());
                continue;
            };
            let stamp_realtime_ns = Some(arrived.stamp_realtime_ns);
            let datagram = Received {
                payload,
                peer: from,
                stamp_realtime_ns,
                local: None,
                is_to_many: false,
                truncated,
            };
            self.handle_datagram(key, now_ns, &datagram)?;
            self.settle(key, now_ns)?;
        }
        self.heard |= received > 0;
        self.recorder.datagrams_received += received;
        arrivals.release();
        self.arrivals = Some(arrivals);
        Ok(Some(now_ns))
    }

    /// The client that an address and port of a machine belong to.
    fn client_on_ring(&self, to: std::net::SocketAddr) -> Option<usize> {
        let key = self.endpoints.ring.as_ref()?.key_at(to);
        let client = self.clients.get(key)?;
        matches!(client.via, Via::Ring { source, .. } if source == to).then_some(key)
    }

    /// Stamps what is queued, then sends it with one call.
    pub(super) fn flush_ring(&mut self) -> Result<(), LoadError> {
        let Some(ring) = &mut self.endpoints.ring else { return Ok(()) };
        if ring.sender.is_empty() {
            return Ok(());
        }
        let now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        for key in &ring.queued {
            if let Some(client) = self.clients.get_mut(*key) {
                client.exchange.flush(now_ns);
            }
        }
        let flushed = ring.flush().map_err(LoadError::os("cannot send"))?;
        self.recorder.flushed(flushed);
        Ok(())
    }

    /// As the poller waits: looks at the ring for `spin_ns`, then sleeps until `timeout_ns` are over. What is queued is
    /// sent before.
    pub(super) fn wait_for_frames(&mut self, timeout_ns: u64, spin_ns: u64) -> Result<Waited, LoadError> {
        self.flush_ring()?;
        let start_ns = clock::monotonic_ns();
        let spin_ns = spin_ns.min(timeout_ns);
        let mut idle_ns = 0;
        loop {
            if self.arrivals.as_ref().is_some_and(|arrivals| arrivals.is_ready()) {
                return Ok(Waited { ready: 1, idle_ns, slept: false });
            }
            if idle_ns >= spin_ns {
                break;
            }
            std::hint::spin_loop();
            idle_ns = clock::monotonic_ns() - start_ns;
        }
        if idle_ns >= timeout_ns {
            return Ok(Waited { ready: 0, idle_ns, slept: false });
        }
        let waited = self.poller.wait(Some(timeout_ns - idle_ns), 0);
        let waited = waited.map_err(LoadError::os("cannot wait for frames"))?;
        Ok(Waited { idle_ns: idle_ns + waited.idle_ns, ..waited })
    }
}
