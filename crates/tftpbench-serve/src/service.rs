//! Everything about serving that is not a concurrency strategy: admission, strays, counters, the packet log.
//! It must never send, receive, wait or read a clock: servers hand it datagrams and the time, and get answers to send.
//!
//! And the sockets that a server needs and the descriptors that it may use, both set up the same way for every server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tftpbench_net::{LocalAddress, Received, Socket, SocketOptions, limits};
use tftpbench_proto::{
    Agreed, ErrorCode, Malformed, Mode, Operation, Options, Packet, Request, emit_error, negotiate,
};

use crate::config::{ServeConfig, ServeError, StoreKind};
use crate::context::{Context, Counter, Direction, Summary};
use crate::paths::{FilePath, Root};
use crate::refusal::Refusal;
use crate::registry::{Claim, Place, Registry};
use crate::store::netascii::NetasciiSource;
use crate::store::temporary::remove_leftovers;
use crate::store::{Source, Store};
use crate::transfer::{Job, Transfer};

/// Room for what comes to the listening socket: a request may be 512 bytes long (RFC 2347), and what is longer must be
/// seen to be.
pub const REQUEST_BYTES: usize = 1024;

/// One running server's shared part. The loop that owns the listening socket calls `admit`; any thread may drive the
/// transfers that come out of it.
pub struct Service {
    context: Arc<Context>,
    store: Store,
    registry: Arc<Registry>,
}

/// What to do about a datagram that came to the listening socket.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "moved once to where it stays; a box would cost every datagram"
)]
pub enum Admission {
    /// A new transfer: drain it, its opening is waiting.
    Start(Transfer),
    /// The peer has a transfer already that has to do with this request: `Transfer::take_repeated_request`. The address
    /// is that of the transfer's own socket, where it has one.
    Repeated(Option<SocketAddr>),
    /// Send this many bytes of `reply` back.
    Reply(usize),
    /// Say nothing.
    Ignore,
}

impl Service {
    /// Opens the root, and removes what uploads of dead servers have left below it where this one may write there.
    /// `now_ns` is the start of the packet log's time.
    pub fn new(config: ServeConfig, now_ns: u64) -> Result<Arc<Service>, ServeError> {
        let root = Root::open(&config.root)
            .map_err(|errno| ServeError::Root { path: config.root.clone(), source: errno.into() })?;
        if config.write && config.store == StoreKind::Disk {
            remove_leftovers(&root);
        }
        Ok(Arc::new(Service {
            store: Store::new(&config, Arc::new(root)),
            registry: Registry::new(config.max_transfers),
            context: Arc::new(Context::new(config, now_ns)),
        }))
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ServeConfig {
        &self.context.config
    }

    /// Whether to say nothing to what belongs to no transfer, and not to judge it either: it was sent to a broadcast or
    /// multicast address (RFC 1123 section 4.2.3.5). Each is counted.
    pub fn passes_over(&self, received: &Received<'_>) -> bool {
        if received.is_to_many {
            self.count(Counter::Broadcasts, 1);
        }
        received.is_to_many
    }

    /// Judges a datagram from the listening socket. `reply` should hold `REPLY_BYTES_MAX`.
    pub fn admit(&self, now_ns: u64, peer: SocketAddr, datagram: &[u8], reply: &mut [u8]) -> Admission {
        self.context.record(now_ns, Direction::In, peer, datagram);
        let answered = match Packet::parse(datagram) {
            Ok(Packet::Request(request)) => {
                self.count(Counter::Requests, 1);
                match self.begin(now_ns, peer, datagram, &request) {
                    Ok(begun) => return begun,
                    Err(refusal) => {
                        self.count(Counter::Refused, 1);
                        Some(refusal)
                    }
                }
            }
            Ok(other) => self.judge_stray(&other),
            Err(malformed) => self.judge_malformed(malformed),
        };
        match answered {
            Some(refusal) => Admission::Reply(self.emit(now_ns, peer, refusal, reply)),
            None => Admission::Ignore,
        }
    }

    /// Ends a transfer without a word, and begins one for the copy of its request that came. `reply` is for a refusal.
    pub fn restart(&self, transfer: Transfer, now_ns: u64, reply: &mut [u8]) -> Admission {
        let Some(place) = transfer.into_renewed_place() else { return Admission::Ignore };
        let (peer, datagram) = (place.peer(), place.request());
        let Ok(Packet::Request(request)) = Packet::parse(&datagram) else { return Admission::Ignore };
        match self.begin_at(now_ns, place, &request) {
            Ok(transfer) => Admission::Start(transfer),
            Err(refusal) => {
                self.count(Counter::Refused, 1);
                Admission::Reply(self.emit(now_ns, peer, refusal, reply))
            }
        }
    }

    /// Answers a datagram that came to a transfer's port from another address (RFC 1350 section 4): returns how many
    /// bytes of `reply` to send back, 0 for none. The transfer goes on undisturbed.
    pub fn answer_stray(&self, now_ns: u64, peer: SocketAddr, datagram: &[u8], reply: &mut [u8]) -> usize {
        self.context.record(now_ns, Direction::In, peer, datagram);
        let refusal = match Packet::parse(datagram) {
            Ok(packet) => self.judge_stray(&packet),
            Err(malformed) => {
                self.context.count_malformed(malformed);
                self.count(Counter::Strays, 1);
                (malformed != Malformed::TooShort).then_some(UNKNOWN_TID)
            }
        };
        refusal.map_or(0, |refusal| self.emit(now_ns, peer, refusal, reply))
    }

    /// Turns a peer down whose transfer could not be carried out after all, for want of a thread or a socket: the bytes
    /// of `reply` to send. The transfer itself is to be dropped.
    pub fn refuse(&self, now_ns: u64, peer: SocketAddr, message: &'static str, reply: &mut [u8]) -> usize {
        self.count(Counter::Refused, 1);
        self.emit(now_ns, peer, Refusal::new(ErrorCode::NOT_DEFINED, message), reply)
    }

    /// From now on every new request is refused; transfers that only dally are over.
    pub fn drain(&self) {
        self.context.drain();
    }

    /// Whether `drain` was called.
    pub fn draining(&self) -> bool {
        self.context.draining()
    }

    /// Transfers whose outcome is open.
    pub fn undecided(&self) -> usize {
        self.registry.undecided()
    }

    /// Whether so many requests could all become transfers now.
    pub fn has_room_for(&self, requests: usize) -> bool {
        self.undecided().saturating_add(requests) <= self.config().max_transfers
    }

    /// Adds to a counter.
    pub fn count(&self, counter: Counter, count: u64) {
        self.context.count(counter, count);
    }

    /// The counters so far.
    pub fn summary(&self) -> Summary {
        self.context.summary()
    }

    /// `Start`, or `Repeated` where a transfer is running that has to do with it.
    fn begin(
        &self,
        now_ns: u64,
        peer: SocketAddr,
        datagram: &[u8],
        request: &Request<'_>,
    ) -> Result<Admission, Refusal> {
        match self.registry.claim(now_ns, peer, datagram) {
            Claim::Place(place) => self.begin_at(now_ns, place, request).map(Admission::Start),
            Claim::Repeated(socket) => {
                self.count(Counter::DuplicateRequests, 1);
                Ok(Admission::Repeated(socket))
            }
            Claim::Full => Err(Refusal::TOO_MANY),
        }
    }

    fn begin_at(&self, now_ns: u64, place: Place, request: &Request<'_>) -> Result<Transfer, Refusal> {
        if self.draining() {
            return Err(Refusal::STOPPING);
        }
        let path = FilePath::parse(request.filename)?;
        let job = match request.operation {
            Operation::Read => self.read_job(&path, request)?,
            Operation::Write => self.write_job(&path, request)?,
        };
        Ok(Transfer::start(now_ns, Arc::clone(&self.context), place, job))
    }

    fn read_job(&self, path: &FilePath, request: &Request<'_>) -> Result<Job, Refusal> {
        let file = self.store.open(path)?;
        let asked = Options::from_list(request.options);
        let (source, length) = match request.mode {
            Mode::Octet => {
                let length = file.length();
                (Source::Octet(file), Some(length))
            }
            Mode::Netascii => {
                let mut text = NetasciiSource::new(file);
                let length = if asked.tsize.is_some() { text.count()? } else { None };
                (Source::Netascii(Box::new(text)), length)
            }
        };
        let granted = negotiate(&asked, &self.config().limits, length);
        Ok(Job::Read { source, granted, agreed: Agreed::from(&granted) })
    }

    fn write_job(&self, path: &FilePath, request: &Request<'_>) -> Result<Job, Refusal> {
        if !self.config().write {
            return Err(Refusal::WRITE_OFF);
        }
        let asked = Options::from_list(request.options);
        let upload = self.store.create(path, asked.tsize)?;
        let granted = negotiate(&asked, &self.config().limits, asked.tsize);
        Ok(Job::Write { upload, mode: request.mode, granted, agreed: Agreed::from(&granted) })
    }

    /// Whether a well-formed packet of no transfer deserves an answer: an ERROR never does (RFC 1350 section 7).
    fn judge_stray(&self, packet: &Packet<'_>) -> Option<Refusal> {
        self.count(Counter::Strays, 1);
        (!matches!(packet, Packet::Error { .. })).then_some(UNKNOWN_TID)
    }

    /// Whether a malformed datagram at the listening port deserves an answer. One datagram out for one in, and short.
    fn judge_malformed(&self, malformed: Malformed) -> Option<Refusal> {
        self.context.count_malformed(malformed);
        let message = match malformed {
            Malformed::TooShort => return None,
            Malformed::UnknownOpcode(_) => "unknown opcode",
            Malformed::UnknownMode => "unknown mode",
            Malformed::MailMode => "mail mode is not supported",
            _ => "malformed request",
        };
        Some(Refusal::new(ErrorCode::ILLEGAL_OPERATION, message))
    }

    fn emit(&self, now_ns: u64, peer: SocketAddr, refusal: Refusal, reply: &mut [u8]) -> usize {
        let length = emit_error(reply, refusal.code, refusal.message);
        self.context.record(now_ns, Direction::Out, peer, &reply[..length]);
        length
    }
}

const UNKNOWN_TID: Refusal = Refusal::new(ErrorCode::UNKNOWN_TID, "unknown transfer ID");

/// Open files that one transfer of a server takes besides its own file, and those that the server takes once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// For each transfer: sockets, mostly.
    pub transfer: u64,
    /// Once.
    pub server: u64,
}

impl Descriptors {
    /// Open files that a server needs at most: its own, and a file for each transfer.
    pub fn needed(self, max_transfers: usize) -> u64 {
        let transfers = (max_transfers as u64).saturating_mul(1 + self.transfer);
        transfers.saturating_add(self.server + PROCESS_DESCRIPTORS)
    }
}

/// Makes room for `max_transfers`, so that the bound that people see is the one that counts.
pub fn raise_open_files(config: &ServeConfig, descriptors: Descriptors) -> Result<(), ServeError> {
    match limits::raise_open_files(descriptors.needed(config.max_transfers)) {
        Ok(_) => Ok(()),
        Err(shortfall) => Err(ServeError::OpenFiles {
            max_transfers: config.max_transfers,
            need: shortfall.need,
            hard: shortfall.hard,
        }),
    }
}

/// The socket that requests come to. Bound to all addresses, it tells which of them was asked: answers come from there.
pub fn listen(config: &ServeConfig) -> Result<Socket, ServeError> {
    Socket::bind(config.address, &options(config))
        .map_err(|source| ServeError::Bind { address: config.address, source })
}

/// As many more sockets as are asked for on the address of the first, which the kernel spreads requests over
/// (SO_REUSEPORT, socket(7)): always to the same one for the same address and port of a client, as long as none is
/// opened or closed. The first was bound alone, so it shares its port with these alone.
pub fn listen_too(config: &ServeConfig, first: &Socket, more: usize) -> Result<Vec<Socket>, ServeError> {
    let address = first.local_addr();
    let share = || {
        if more > 0 {
            first.share_address()?;
        }
        let shared = SocketOptions { reuse_port: true, ..options(config) };
        (0..more).map(|_| Socket::bind(address, &shared)).collect::<io::Result<_>>()
    };
    share().map_err(|source| ServeError::Bind { address, source })
}

/// A socket for replies on a port of its own: the server's TID (RFC 1350 section 4). The kernel picks the port at
/// random (`udp_lib_get_port` in net/ipv4/udp.c, as RFC 6056 asks), from the system's range (ip_local_port_range,
/// ip(7)).
///
/// `asked`: the address that the only transfer's request was sent to, where the listening socket knows it. Without one,
/// the socket answers from any address, as each datagram says. `awaits_windows`: blocks may come many at a time (RFC
/// 7440), and are to be read with a `ReceiveBatch::coalescing`; not with batches off.
pub fn reply_socket(
    config: &ServeConfig,
    asked: Option<LocalAddress>,
    awaits_windows: bool,
) -> io::Result<Socket> {
    let mut options =
        SocketOptions { receive_coalesced: awaits_windows && config.batch > 1, ..options(config) };
    options.packet_info &= asked.is_none();
    let mut any_port = config.address;
    any_port.set_port(0);
    Socket::bind(asked.map_or(any_port, |asked| asked.with_port(0)), &options)
}

/// Standard streams, the root, the poller, and what an interpreter around the server holds open.
const PROCESS_DESCRIPTORS: u64 = 64;

fn options(config: &ServeConfig) -> SocketOptions {
    SocketOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        send_buffer_bytes: config.send_buffer_bytes,
        // Costs control data a datagram, so only where there is more than one address.
        packet_info: config.address.ip().is_unspecified(),
        ..SocketOptions::default()
    }
}
