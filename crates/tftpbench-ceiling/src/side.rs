//! What both sides are made of: sockets, one batch in and one batch out, how they wait, and what they share with the
//! caller's thread.
//!
//! It never allocates once it is open, and never looks at a clock while datagrams arrive.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64};

use tftpbench_net::{Poller, ReceiveBatch, SendBatch, Socket, SocketOptions, Stop, clock, cpus};

use crate::config::{Arrangement, CeilingError, Cell, HEADER_BYTES};

/// Asked for as the bundled servers and the generator's shared sockets do; the kernel grants up to net.core.rmem_max.
const BUFFER_BYTES: usize = 4 << 20;
/// The most that a batch of windows takes of the arena: what is larger leaves sooner.
const ARENA_BYTES_MAX: usize = 4 << 20;
/// The end is heard of within this by a side that waits in the receiving call.
const NAP_NS: u64 = 10_000_000;
const END: u64 = u64::MAX;
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

/// What a side is opened with.
pub(crate) struct Plan<'a> {
    pub(crate) sockets: usize,
    /// Shared sockets that tell which address a datagram was sent to; else each is bound to 127.0.0.1.
    pub(crate) are_shared: bool,
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

/// Where answers go: the socket that the message came by.
pub(crate) struct Outbox<'a> {
    batch: &'a mut SendBatch,
    socket: &'a Socket,
    is_connected: bool,
}

impl Outbox<'_> {
    /// Queues `count` datagrams of `bytes`, each beginning with `key`. What does not fit is sent at once.
    #[inline]
    pub(crate) fn push(
        &mut self,
        source: Option<Ipv4Addr>,
        peer: SocketAddr,
        key: u32,
        bytes: usize,
        count: usize,
    ) -> io::Result<()> {
        let peer = (!self.is_connected).then_some(peer);
        let mut left = count;
        while left > 0 {
            let pushed = self.batch.push_run(source.map(Into::into), peer, bytes, left, |room| {
                for datagram in room.chunks_exact_mut(bytes) {
                    datagram[..HEADER_BYTES].copy_from_slice(&key.to_ne_bytes());
                }
            });
            if pushed == 0 {
                self.batch.flush(self.socket)?;
            }
            left -= pushed;
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
        let sockets = (0..plan.sockets).map(|_| open_socket(cell, plan)).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(CeilingError::os("cannot open a socket"))?;
        let waits_in_receive = arrangement.waits_in_receive && sockets.len() == 1;
        let poller = (!waits_in_receive).then(|| watch(&sockets, plan.end)).transpose();
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
        let socket = &self.sockets[socket];
        fill(&mut Outbox { batch: &mut self.outbox, socket, is_connected: self.is_connected })?;
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

#[inline]
fn answer(
    arrivals: &ReceiveBatch,
    outbox: &mut SendBatch,
    socket: &Socket,
    is_connected: bool,
    each: &mut impl FnMut(&mut Outbox<'_>, Message) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Outbox { batch: outbox, socket, is_connected };
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

fn open_socket(cell: &Cell, plan: &Plan<'_>) -> io::Result<Socket> {
    let ip = if plan.are_shared { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let options = SocketOptions {
        receive_buffer_bytes: BUFFER_BYTES,
        send_buffer_bytes: BUFFER_BYTES,
        packet_info: plan.are_shared,
        receive_coalesced: plan.receives_data && cell.windowsize > 1,
        ..SocketOptions::default()
    };
    Socket::bind(SocketAddr::new(ip.into(), 0), &options)
}

fn watch(sockets: &[Socket], end: &Stop) -> io::Result<Poller> {
    let poller = Poller::new()?;
    poller.add(end, END)?;
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
