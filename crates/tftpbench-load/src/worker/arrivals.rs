//! What a worker does with the datagrams that its last wait announced: each goes to the client it is for.

use tftpbench_net::{LocalAddress, Received, clock};

use super::{SHARED_TOKENS, STOP_TOKEN, Worker};
use crate::client::Drained;
use crate::endpoints::Via;
use crate::load_error::LoadError;

/// Batches read from an only shared socket before the poller is asked again, which alone tells of a stop.
const RECEIVES_PER_POLL_MAX: u32 = 16;

impl Worker<'_> {
    /// Where one shared socket carries all clients, it is read on without asking the poller as long as it gives
    /// datagrams: at few transfers in flight that call would be made for every one or two of them. None once it is
    /// empty.
    pub(super) fn read_on(&mut self) -> Result<Option<u64>, LoadError> {
        if self.arrivals.is_some() {
            return self.read_ring();
        }
        if self.endpoints.shared.len() != 1
            || self.receives_since_poll == 0
            || self.receives_since_poll > RECEIVES_PER_POLL_MAX
        {
            return Ok(None);
        }
        let now_ns = self.handle_shared_socket(0)?;
        Ok((self.receives_since_poll > 0).then_some(now_ns))
    }

    /// Handles every socket that the last wait found readable; returns the time.
    pub(super) fn handle_ready(&mut self) -> Result<u64, LoadError> {
        let mut now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        self.receives_since_poll = 0;
        for index in 0..self.poller.tokens().len() {
            let token = self.poller.tokens()[index];
            let shared_socket = (SHARED_TOKENS - token.min(SHARED_TOKENS)) as usize;
            if token != STOP_TOKEN && shared_socket < self.endpoints.shared.len() {
                now_ns = self.handle_shared_socket(shared_socket)?;
            } else if let Some(key) = self.key_of(token) {
                now_ns = self.handle_own_socket(key)?;
            }
        }
        Ok(now_ns)
    }

    fn handle_own_socket(&mut self, key: usize) -> Result<u64, LoadError> {
        // The batch is lent out so that the client and the rest of the worker can be borrowed beside it.
        let Some(mut receive) = self.receive.take() else { return Ok(clock::monotonic_ns()) };
        let received = match &self.clients[key].via {
            Via::Own(socket) => receive.receive(socket),
            Via::Shared { .. } | Via::Ring { .. } => Ok(0),
        };
        let now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        let received = received.map_err(LoadError::os("cannot receive"))?;
        self.heard |= received > 0;
        self.recorder.datagrams_received += received as u64;
        for datagram in receive.iter() {
            self.handle_datagram(key, now_ns, &datagram)?;
        }
        self.receive = Some(receive);
        self.settle(key, now_ns)?;
        Ok(now_ns)
    }

    /// Takes one batch from a shared socket and sends all answers with one call.
    fn handle_shared_socket(&mut self, index: usize) -> Result<u64, LoadError> {
        let Some(mut receive) = self.receive.take() else { return Ok(clock::monotonic_ns()) };
        let received = receive.receive(&self.endpoints.shared[index].socket);
        let now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        let received = received.map_err(LoadError::os("cannot receive"))?;
        self.heard |= received > 0;
        self.recorder.datagrams_received += received as u64;
        self.receives_since_poll = if received > 0 { self.receives_since_poll + 1 } else { 0 };
        // Whose datagrams these are, until another's come: a window is looked up once, and settled once.
        let mut current: Option<(Option<LocalAddress>, usize)> = None;
        for datagram in receive.iter() {
            if let Some((_, key)) = current.take_if(|(address, _)| *address != datagram.local) {
                self.settle(key, now_ns)?;
            }
            if current.is_none() {
                current = self.client_at(index, datagram.local).map(|key| (datagram.local, key));
            }
            match current {
                Some((_, key)) => self.handle_datagram(key, now_ns, &datagram)?,
                // It came too late for its transfer, or from a stranger that guessed an address.
                None => {
                    self.faults.late_datagrams += 1;
                    self.recorder.datagram(now_ns, datagram.payload.len());
                }
            }
        }
        if let Some((_, key)) = current {
            self.settle(key, now_ns)?;
        }
        self.receive = Some(receive);
        self.flush_shared_socket(index)?;
        Ok(now_ns)
    }

    pub(super) fn handle_datagram(
        &mut self,
        key: usize,
        now_ns: u64,
        datagram: &Received<'_>,
    ) -> Result<(), LoadError> {
        let (client, mut shared) = self.split(key);
        client.handle_datagram(now_ns, datagram, &mut shared);
        match client.drain(now_ns, &mut shared).map_err(LoadError::os("cannot send"))? {
            Drained::Complete => Ok(()),
            Drained::SocketFull => self.drain(key, now_ns),
        }
    }

    /// The client that an address of a shared socket belongs to.
    fn client_at(&self, shared_socket: usize, address: Option<LocalAddress>) -> Option<usize> {
        let address = address?;
        let key = self.endpoints.key_at(shared_socket, address.ip());
        let client = self.clients.get(key)?;
        matches!(client.via, Via::Shared { index, source, .. } if source == address && index == shared_socket)
            .then_some(key)
    }
}
