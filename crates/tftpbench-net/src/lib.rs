//! Linux UDP: sockets, batches, epoll, busy-poll, timers, stop requests.
//!
//! One job: system calls. It knows datagrams, addresses and times, and nothing of TFTP. It is the
//! only crate of the workspace that may hold unsafe code, so whatever needs some goes here. Nothing
//! in it blocks except [`Poller::wait`] and [`ReceiveBatch::receive_blocking`]; nothing on the way
//! of a datagram allocates. What a kernel or a sandbox refuses degrades where it can: a socket option
//! that is missing costs a figure or some speed, never the socket.
//!
//! All times are nanoseconds in a `u64`. [`clock::monotonic_ns`] is the time base of everything but
//! receive stamps, which the kernel gives in real time ([`clock::realtime_ns`]).
//!
//! Datagrams of equal length to one peer leave as one message that the kernel cuts (UDP_SEGMENT), without being asked
//! for; what arrives so is taken whole where a socket asks for it (UDP_GRO). Callers see single datagrams either way.
//!
//! A [`RingReceiver`] and a [`RingSender`] do without UDP sockets: they read and write datagrams as whole frames, in memory
//! that the kernel shares, for any number of machines. Sockets of other network namespaces come from a [`Broker`].
//!
//! Beside UDP there is what hands whole files to another process: [`SharedMemory`] and [`Handover`]; and
//! [`Deferrable`], for what takes the kernel long to free.
//!
//! # How the parts fit together
//!
//! ```
//! use tftpbench_net::{Poller, ReceiveBatch, SendBatch, Socket, SocketOptions, Stop};
//!
//! # fn main() -> std::io::Result<()> {
//! let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default())?;
//! let stop = Stop::new()?;
//! let mut poller = Poller::new()?;
//! poller.add(&socket, 0)?;
//! poller.add(&stop, 1)?;
//! let mut arrivals = ReceiveBatch::new(64, 65_536);
//! let mut replies = SendBatch::new(64, 64 * 65_536);
//! # stop.request();
//! while stop.requests() == 0 {
//!     poller.wait(None, 0)?;
//!     while arrivals.receive(&socket)? > 0 {
//!         for datagram in arrivals.iter() {
//!             let echo = |room: &mut [u8]| {
//!                 room.copy_from_slice(datagram.payload);
//!                 room.len()
//!             };
//!             replies.push(datagram.peer, datagram.payload.len(), echo);
//!         }
//!         replies.flush(&socket)?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("tftpbench-net uses Linux system calls (epoll, recvmmsg, sendmmsg)");

pub mod clock;
pub mod cpus;
pub mod limits;

mod address;
mod broker;
mod control;
mod datagram_run;
mod deferred;
mod errno;
mod frame;
mod handover;
mod poller;
mod receive;
mod ring;
mod ring_receive;
mod ring_send;
mod segments;
mod send;
mod shared_memory;
mod socket;
mod stop;
mod timers;

pub use address::{LocalAddress, Subnet, low_bits, parse_host};
pub use broker::{Broker, Side, SocketSource};
pub use datagram_run::{DatagramRun, Payload};
pub use deferred::{Deferrable, LARGE_BYTES};
pub use frame::{Frame, Headers, Mac, parse as parse_frame, payload_max};
pub use handover::Handover;
pub use poller::{Poller, Source, Waited};
pub use receive::{ReceiveBatch, Received};
pub use ring::RingLink;
pub use ring_receive::{Arrived, RingReceiver};
pub use ring_send::RingSender;
pub use send::{Flushed, SendBatch};
pub use shared_memory::{Mapping, Sealed, SharedMemory};
pub use socket::{Sent, Socket, SocketOptions};
pub use stop::Stop;
pub use timers::Timers;
