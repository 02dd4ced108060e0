//! What both sides are made of: sockets, one batch in and one batch out, how they wait, and what they share with the
//! caller's thread.
//!
//! It never allocates once it is open, and never looks at a clock while datagrams arrive.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64};

use tftpbench_net::{
    Frame, Poller, ReceiveBatch, RingReceiver, RingSender, SendBatch, Socket, SocketOptions, SocketSource,
    Stop, clock, cpus,
};

use crate::config::{Arrangement, CeilingError, Cell, HEADER_BYTES};

/// Asked for as the bundled servers and the generator's shared sockets do; the kernel grants up to net.core.rmem_max.
const BUFFER_BYTES: usize = 4 << 20;
/// The most that a batch of windows takes of the arena: what is larger leaves sooner.
const ARENA_BYTES_MAX: usize = 4 << 20;
/// The end is heard of within this by a side that waits in the receiving call.
const NAP_NS: u64 = 10_000_000;
const END: u64 = u64::MAX;
/// The token of a ring.
const RING: u64 = 0;
/// The port of every flow on a ring: each has an address of its own.
const RING_PORT: u16 = 20_000;
/// Frames that may wait on a ring, for each flow and at least.
const WAITING_EACH: usize = 2;
const WAITING_MIN: usize = 512;
/// How often the caller's thread looks on; flows count their silence in these.
pub(crate) const TICK_NS: u64 = 25_000_000;

/// What the threads of a pair tell the caller's, and hear from it. On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    pub(crate) datagrams: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// Ticks since the start.
    pub(crate) tick: AtomicU32,
}

/// One thread's half of a pair.
pub(crate) struct Side {
    sockets: Vec<Socket>,
    /// Where there is one, there are no sockets.
    ring: Option<Ring>,
    /// None: it waits in the receiving call.
    poller: Option<Poller>,
    arrivals: ReceiveBatch,
    outbox: SendBatch,
    spin_ns: u64,
    /// While it polls it asks each of its sockets instead of the poller.
    sweeps: bool,
    is_connected: bool,
    cpu: Option<usize>,
    end: Stop,
}

/// A packet ring each way.
struct Ring {
    receiver: RingReceiver,
    sender: RingSender,
    /// Frames that wait to be sent, at most.
    batch: usize,
}

/// What a side is opened with.
pub(crate) struct Plan<'a> {
    pub(crate) sockets: usize,
    /// Shared sockets that tell which address a datagram was sent to; else each is bound to one.
    pub(crate) are_shared: bool,
    /// It is the asking side.
    pub(crate) asks: bool,
    /// A ring instead of sockets, for the flows of this pair out of so many.
    pub(crate) ring: Option<(usize, usize)>,
    /// Windows of DATA-sized datagrams arrive here, and the others are sent; else the other way round.
    pub(crate) receives_data: bool,
    pub(crate) spin_ns: u64,
    pub(crate) cpu: Option<usize>,
    pub(crate) end: &'a Stop,
}

/// A message as the kernel gave it: one datagram, or the run of a window.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    /// The first 4 bytes of its first datagram.
    pub(crate) key: u32,
    pub(crate) datagrams: usize,
    pub(crate) peer: SocketAddr,
}

/// Where answers go: the socket, or the ring, that the message came by.
pub(crate) enum Outbox<'a> {
    Socket { batch: &'a mut SendBatch, socket: &'a Socket, is_connected: bool },
    Ring(&'a mut RingSender),
}

impl Outbox<'_> {
    /// Queues `count` datagrams of `bytes`, each beginning with `key`. What does not fit is sent at once. A ring has no
    /// address of its own: `source` must be one.
    #[inline]
    pub(crate) fn push(
        &mut self,
        source: Option<IpAddr>,
        peer: SocketAddr,
        key: u32,
        bytes: usize,
        count: usize,
    ) -> io::Result<()> {
        match self {
            Outbox::Socket { batch, socket, is_connected } => {
                let peer = (!*is_connected).then_some(peer);
                let mut left = count;
                while left > 0 {
                    let pushed = batch.push_run(source.map(Into::into), peer, bytes, left, |room| {
                        for datagram in room.chunks_exact_mut(bytes) {
                            datagram[..HEADER_BYTES].copy_from_slice(&key.to_ne_bytes());
                        }
                    });
                    if pushed == 0 {
                        batch.flush(socket)?;
                    }
                    left -= pushed;
                }
            }
            Outbox::Ring(sender) => {
                let Some(source) = source else { return Ok(()) };
                if !sender.has_room() {
                    sender.flush()?;
                }
                for _ in 0..count {
                    sender.push(SocketAddr::new(source, RING_PORT), peer, bytes, |room| {
                        room[..HEADER_BYTES].copy_from_slice(&key.to_ne_bytes());
                        bytes
                    });
                }
            }
        }
        Ok(())
    }
}

impl Side {
    pub(crate) fn open(
        cell: &Cell,
        arrangement: &Arrangement,
        plan: &Plan<'_>,
    ) -> Result<Side, CeilingError> {
        let ring = plan.ring.map(|share| Ring::open(cell, arrangement.batch, share)).transpose()?.flatten();
        let count = if ring.is_some() { 0 } else { plan.sockets };
        let sockets = (0..count).map(|index| open_socket(cell, plan, index)).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(CeilingError::os("cannot open a socket"))?;
        let waits_in_receive = arrangement.waits_in_receive && sockets.len() == 1;
        let poller = (!waits_in_receive).then(|| watch(&sockets, ring.as_ref(), plan.end)).transpose();
        Ok(Side {
            poller: poller.map_err(CeilingError::os("cannot watch the sockets"))?,
            arrivals: match plan.receives_data {
                true if cell.windowsize > 1 => ReceiveBatch::coalescing(arrangement.batch, cell.data_bytes()),
                true => ReceiveBatch::new(arrangement.batch, cell.data_bytes()),
                false => ReceiveBatch::new(arrangement.batch, HEADER_BYTES),
            },
            outbox: match plan.receives_data {
                true => SendBatch::new(arrangement.batch, arrangement.batch * HEADER_BYTES),
                false => outbox_for_windows(cell, arrangement.batch),
            },
            spin_ns: plan.spin_ns,
            sweeps: arrangement.waits_in_receive && sockets.len() > 1 && plan.spin_ns > 0,
            is_connected: arrangement.is_connected,
            sockets,
            ring,
            cpu: plan.cpu,
            end: plan.end.clone(),
        })
    }

    pub(crate) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Makes each socket known to its peer, as far as there are peers.
    pub(crate) fn connect(&self, peers: &[SocketAddr]) -> Result<(), CeilingError> {
        let mut pairs = self.sockets.iter().zip(peers);
        pairs
            .try_for_each(|(socket, peer)| socket.connect(*peer))
            .map_err(CeilingError::os("cannot connect a socket"))
    }

    /// Binds the calling thread to the side's CPU.
    pub(crate) fn pin(&self) -> Result<(), CeilingError> {
        let Some(cpu) = self.cpu else { return Ok(()) };
        cpus::pin_current_thread(&[cpu]).map_err(CeilingError::os("cannot pin a thread to its CPU"))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end.requests() > 0
    }

    /// Waits for datagrams, at most `timeout_ns`, has `each` answer every message, and sends the answers.
    #[inline]
    pub(crate) fn turn(
        &mut self,
        timeout_ns: Option<u64>,
        mut each: impl FnMut(&mut Outbox<'_>, Message) -> io::Result<()>,
    ) -> io::Result<()> {
        let nap_ns = timeout_ns.map_or(NAP_NS, |timeout_ns| timeout_ns.min(NAP_NS));
        if let (Some(ring), Some(poller)) = (&mut self.ring, &mut self.poller) {
            ring.wait(poller, nap_ns, self.spin_ns)?;
            return ring.turn(&mut each);
        }
        if self.sweeps && self.sweep(nap_ns.min(self.spin_ns), &mut each)? {
            return Ok(());
        }
        let is_connected = self.is_connected;
        let Some(poller) = &mut self.poller else {
            self.receive_waiting(nap_ns)?;
            return answer(&self.arrivals, &mut self.outbox, &self.sockets[0], is_connected, &mut each);
        };
        poller.wait(timeout_ns, if self.sweeps { 0 } else { self.spin_ns })?;
        for &token in poller.tokens().iter().filter(|&&token| token != END) {
            let socket = &self.sockets[token as usize];
            self.arrivals.receive(socket)?;
            answer(&self.arrivals, &mut self.outbox, socket, is_connected, &mut each)?;
        }
        Ok(())
    }

    /// Asks each socket in turn until one has something, and tells whether one did within `spin_ns`. A side that never
    /// sleeps ends here every time.
    fn sweep(
        &mut self,
        spin_ns: u64,
        each: &mut impl FnMut(&mut Outbox<'_>, Message) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut start_ns = None;
        loop {
            let mut has_heard = false;
            for socket in &self.sockets {
                if self.arrivals.receive(socket)? > 0 {
                    answer(&self.arrivals, &mut self.outbox, socket, self.is_connected, each)?;
                    has_heard = true;
                }
            }
            if has_heard {
                return Ok(true);
            }
            let now_ns = clock::monotonic_ns();
            if now_ns - *start_ns.get_or_insert(now_ns) >= spin_ns {
                return Ok(self.spin_ns > spin_ns);
            }
        }
    }

    /// Sends by the socket of this number what `fill` queues, without waiting for anything.
    pub(crate) fn send(
        &mut self,
        socket: usize,
        fill: impl FnOnce(&mut Outbox<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(ring) = &mut self.ring {
            fill(&mut Outbox::Ring(&mut ring.sender))?;
            return ring.sender.flush().map(drop);
        }
        let socket = &self.sockets[socket];
        fill(&mut Outbox::Socket { batch: &mut self.outbox, socket, is_connected: self.is_connected })?;
        self.outbox.flush(socket).map(drop)
    }

    /// Polls for `spin_ns`, then sleeps, in the receiving call both times.
    fn receive_waiting(&mut self, timeout_ns: u64) -> io::Result<usize> {
        let socket = &self.sockets[0];
        if self.spin_ns == 0 {
            return self.arrivals.receive_blocking(socket, timeout_ns);
        }
        let received = self.arrivals.receive(socket)?;
        if received > 0 {
            return Ok(received);
        }
        let start_ns = clock::monotonic_ns();
        let (spin_ns, mut waited_ns) = (self.spin_ns.min(timeout_ns), 0);
        while waited_ns < spin_ns {
            std::hint::spin_loop();
            let received = self.arrivals.receive(socket)?;
            if received > 0 {
                return Ok(received);
            }
            waited_ns = clock::monotonic_ns() - start_ns;
        }
        self.arrivals.receive_blocking(socket, timeout_ns.saturating_sub(waited_ns))
    }
}

impl Ring {
    /// For the asking side: None where the cell has no network with a way of frames, which was refused before.
    fn open(cell: &Cell, batch: usize, share: (usize, usize)) -> Result<Option<Ring>, CeilingError> {
        let Some((link, machines)) = cell.ring() else { return Ok(None) };
        let bytes = cell.data_bytes();
        let waiting = cell.flows.saturating_mul(WAITING_EACH).max(WAITING_MIN);
        let receiver = RingReceiver::open(link, *machines, share, waiting, bytes)
            .map_err(CeilingError::os("cannot open a ring to receive by"))?;
        let sender = RingSender::open(link, machines.base(), bytes)
            .map_err(CeilingError::os("cannot open a ring to send by"))?;
        Ok(Some(Ring { receiver, sender, batch }))
    }

    /// Looks at the ring's memory for `spin_ns`, then sleeps, at most `timeout_ns` in all.
    #[inline]
    fn wait(&mut self, poller: &mut Poller, timeout_ns: u64, spin_ns: u64) -> io::Result<()> {
        let mut start_ns = None;
        while !self.receiver.is_ready() {
            let now_ns = clock::monotonic_ns();
            let waited_ns = now_ns - *start_ns.get_or_insert(now_ns);
            if waited_ns >= timeout_ns {
                break;
            }
            if waited_ns >= spin_ns {
                return poller.wait(Some(timeout_ns - waited_ns), 0).map(drop);
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Has `each` answer what has arrived, until nothing waits or a batch is full, and sends the answers.
    #[inline]
    fn turn(&mut self, each: &mut impl FnMut(&mut Outbox<'_>, Message) -> io::Result<()>) -> io::Result<()> {
        while self.sender.len() < self.batch && self.receiver.receive() > 0 {
            for arrived in self.receiver.iter() {
                let Frame::Datagram { from, payload, .. } = arrived.frame else { continue };
                let Some(key) = payload.first_chunk::<HEADER_BYTES>() else { continue };
                let message = Message { key: u32::from_ne_bytes(*key), datagrams: 1, peer: from };
                each(&mut Outbox::Ring(&mut self.sender), message)?;
            }
        }
        self.receiver.release();
        if !self.sender.is_empty() {
            self.sender.flush()?;
        }
        Ok(())
    }
}

#[inline]
fn answer(
    arrivals: &ReceiveBatch,
    outbox: &mut SendBatch,
    socket: &Socket,
    is_connected: bool,
    each: &mut impl FnMut(&mut Outbox<'_>, Message) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Outbox::Socket { batch: outbox, socket, is_connected };
    for (message, datagrams) in arrivals.messages() {
        if let Some(key) = message.payload.first_chunk::<HEADER_BYTES>() {
            each(&mut out, Message { key: u32::from_ne_bytes(*key), datagrams, peer: message.peer })?;
        }
    }
    if !outbox.is_empty() {
        outbox.flush(socket)?;
    }
    Ok(())
}

/// A batch is so many windows: the arena is what ends it, for a run is not cut short by the number of messages.
fn outbox_for_windows(cell: &Cell, batch: usize) -> SendBatch {
    let window_bytes = cell.windowsize * cell.data_bytes();
    let windows = (ARENA_BYTES_MAX / window_bytes).clamp(1, batch);
    let bytes = (windows * window_bytes).min(ARENA_BYTES_MAX.max(cell.data_bytes()));
    SendBatch::new(windows * cell.messages_in_a_window() + 1, bytes)
}

/// The socket of this number. Over loopback it is at 127.0.0.1; in a network the answering side is at one address, and
/// each flow at its own.
fn open_socket(cell: &Cell, plan: &Plan<'_>, index: usize) -> io::Result<Socket> {
    let (source, own) = match &cell.network {
        None => (&SocketSource::Here, Ipv4Addr::LOCALHOST.into()),
        Some(network) if plan.asks => (&network.asking, network.machines.address(index as u32)),
        Some(network) => (&network.answering, network.server),
    };
    let any: IpAddr = match own {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ip = if plan.are_shared { any } else { own };
    let options = SocketOptions {
        receive_buffer_bytes: BUFFER_BYTES,
        send_buffer_bytes: BUFFER_BYTES,
        packet_info: plan.are_shared,
        receive_coalesced: plan.receives_data && cell.windowsize > 1,
        any_source: plan.asks && cell.network.is_some(),
        ..SocketOptions::default()
    };
    Socket::bind_in(source, SocketAddr::new(ip, 0), &options)
}

fn watch(sockets: &[Socket], ring: Option<&Ring>, end: &Stop) -> io::Result<Poller> {
    let poller = Poller::new()?;
    poller.add(end, END)?;
    if let Some(ring) = ring {
        poller.add(&ring.receiver, RING)?;
    }
    for (socket, token) in sockets.iter().zip(0..) {
        poller.add(socket, token)?;
    }
    Ok(poller)
}

/// The index of the flow that a key names. Its other half counts how often the flow was started, so that what is still
/// on the way from before is distinguished from what belongs to it.
pub(crate) fn flow_index(key: u32) -> usize {
    (key & 0xffff) as usize
}
