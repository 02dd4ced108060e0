//! The null server: answers every datagram of TFTP at once, without a transfer or any state but the one file that it has.
//! It stands for a server that costs nothing, so that the generator before it is what is full.
//!
//! It receives by UDP sockets, as a server does: over a veth pair, the kernel takes a datagram as far as the socket on the
//! core that sends it, so that way is part of what the generator costs. Its answers leave by a packet ring, where they
//! cost least.
//!
//! Which block a client wants next follows from the datagram that it sent. Nothing is sent again or refused: a lost one
//! is the client's to send again. It must never run where its CPU is not its own: it polls without sleeping.

use std::net::SocketAddr;

use tftpbench_net::{
    ReceiveBatch, RingLink, RingSender, Socket, SocketOptions, SocketSource, Stop, clock, cpus,
};

use crate::config::{CeilingError, HEADER_BYTES};

/// RFC 1350 section 5, RFC 2347.
const READ: u8 = 1;
const WRITE: u8 = 2;
const DATA: u8 = 3;
const ACK: u8 = 4;
const OACK: u8 = 6;
/// RFC 1350 section 4: what a block has unless it is asked for otherwise (RFC 2348).
const BLKSIZE_DEFAULT: usize = 512;
/// What the kernel accounts for a small datagram in a receive buffer, and no less for a larger one beside its bytes.
const BUFFER_BYTES_EACH: usize = 1_024;
/// Each of them costs a system call a turn.
const SOCKETS_MAX: usize = 16;

/// One that answers to an address, until it is stopped.
pub struct NullServer {
    sockets: Vec<Socket>,
    address: SocketAddr,
    arrivals: ReceiveBatch,
    sender: RingSender,
    file: File,
    cpu: Option<usize>,
}

/// What it was opened with.
#[derive(Clone, Debug)]
pub struct NullServerConfig {
    /// The way of answers. Its source has the sockets, too.
    pub link: RingLink,
    /// Where it listens, and what its answers come from; an interface need not have it.
    pub address: SocketAddr,
    /// What every read gets: of fewer than 65,535 blocks.
    pub contents: Vec<u8>,
    /// Bytes of a block.
    pub blksize: usize,
    /// Datagrams that may wait.
    pub waiting: usize,
    /// Where it runs; none leaves it to the scheduler.
    pub cpu: Option<usize>,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Time since its start.
    pub elapsed_ns: u64,
    /// Of that, time in which none was there.
    pub idle_ns: u64,
    /// Datagrams that found no room.
    pub drops: u64,
}

struct File {
    contents: Vec<u8>,
    blksize: usize,
    /// What grants the block size; empty where it is the usual one, for which no client asks.
    grant: Vec<u8>,
}

impl NullServer {
    /// Datagrams that come from now on are answered once it runs.
    pub fn open(config: NullServerConfig) -> Result<NullServer, CeilingError> {
        let blksize = config.blksize;
        if blksize == 0 || config.contents.len() / blksize >= usize::from(u16::MAX) - 1 {
            return Err(CeilingError::Config("contents: must be of fewer than 65535 blocks"));
        }
        let buffer_bytes = config.waiting.saturating_mul(BUFFER_BYTES_EACH + HEADER_BYTES + blksize);
        let sockets = listen(&config.link.source, config.address, buffer_bytes)
            .map_err(CeilingError::os("cannot listen"))?;
        let grant = match blksize {
            BLKSIZE_DEFAULT => Vec::new(),
            other => [&[0, OACK], format!("blksize\0{other}\0").as_bytes()].concat(),
        };
        let file = File { contents: config.contents, blksize, grant };
        let mut sender = RingSender::open(&config.link, config.address.ip(), file.answer_max())
            .map_err(CeilingError::os("cannot open a ring to send by"))?;
        // As a server's socket does on such a link.
        sender.leave_checksums();
        Ok(NullServer {
            sockets,
            address: config.address,
            // What is behind the block number says nothing to it.
            arrivals: ReceiveBatch::new(RingSender::QUEUE_MAX, HEADER_BYTES),
            sender,
            file,
            cpu: config.cpu,
        })
    }

    /// Answers until a stop is asked for.
    pub fn run(mut self, stop: &Stop) -> Result<Answered, CeilingError> {
        if let Some(cpu) = self.cpu {
            cpus::pin_current_thread(&[cpu]).map_err(CeilingError::os("cannot pin a thread to its CPU"))?;
        }
        let start_ns = clock::monotonic_ns();
        let mut answered = Answered::default();
        // When it last found nothing, if that was in the last turn.
        let mut empty_ns = None;
        while stop.requests() == 0 {
            let datagrams = self.turn().map_err(CeilingError::os("cannot receive or send"))?;
            answered.datagrams += datagrams;
            empty_ns = match datagrams {
                0 => {
                    let now_ns = clock::monotonic_ns();
                    answered.idle_ns += now_ns - empty_ns.unwrap_or(now_ns);
                    std::hint::spin_loop();
                    Some(now_ns)
                }
                _ => None,
            };
        }
        answered.elapsed_ns = clock::monotonic_ns() - start_ns;
        answered.drops = self.sockets.iter().map(Socket::drops).sum();
        Ok(answered)
    }

    /// Answers a batch of what has arrived at each socket, and tells how many datagrams that is.
    #[inline]
    fn turn(&mut self) -> std::io::Result<u64> {
        let (mut datagrams, len_max) = (0, self.file.answer_max());
        for socket in &self.sockets {
            datagrams += self.arrivals.receive(socket)? as u64;
            for arrived in self.arrivals.iter() {
                if !self.sender.has_room() {
                    self.sender.flush()?;
                }
                let answer = |room: &mut [u8]| self.file.answer(arrived.payload, room);
                self.sender.push(self.address, arrived.peer, len_max, answer);
            }
        }
        if !self.sender.is_empty() {
            self.sender.flush()?;
        }
        Ok(datagrams)
    }
}

/// Sockets of one address whose buffers hold so much together: a system grants each of them a part only, and the kernel
/// spreads the clients over all.
fn listen(source: &SocketSource, address: SocketAddr, buffer_bytes: usize) -> std::io::Result<Vec<Socket>> {
    let options =
        SocketOptions { receive_buffer_bytes: buffer_bytes, any_source: true, ..SocketOptions::default() };
    let first = Socket::bind_in(source, address, &options)?;
    let granted_bytes = first.granted_receive_buffer_bytes().max(1);
    let more = buffer_bytes.div_ceil(granted_bytes).min(SOCKETS_MAX).saturating_sub(1);
    if more > 0 {
        first.share_address()?;
    }
    let (address, options) = (first.local_addr(), SocketOptions { reuse_port: true, ..options });
    let others = (0..more).map(|_| Socket::bind_in(source, address, &options));
    std::iter::once(Ok(first)).chain(others).collect()
}

impl File {
    /// No answer is longer.
    fn answer_max(&self) -> usize {
        (HEADER_BYTES + self.blksize).max(self.grant.len())
    }

    /// Writes what follows on a datagram, and tells how long it is: 0 for nothing.
    #[inline]
    fn answer(&self, datagram: &[u8], room: &mut [u8]) -> usize {
        match *datagram {
            [0, READ, ..] if self.grant.is_empty() => self.data(1, room),
            [0, WRITE, ..] if self.grant.is_empty() => acknowledge(0, room),
            [0, READ | WRITE, ..] => {
                room[..self.grant.len()].copy_from_slice(&self.grant);
                self.grant.len()
            }
            [0, ACK, high, low, ..] => self.data(usize::from(u16::from_be_bytes([high, low])) + 1, room),
            [0, DATA, high, low, ..] => acknowledge(u16::from_be_bytes([high, low]), room),
            _ => 0,
        }
    }

    /// A block, from 1; nothing behind the last one, which is a short one.
    #[inline]
    fn data(&self, block: usize, room: &mut [u8]) -> usize {
        let start = (block - 1) * self.blksize;
        let Some(rest) = self.contents.get(start..) else { return 0 };
        let bytes = &rest[..rest.len().min(self.blksize)];
        room[..2].copy_from_slice(&[0, DATA]);
        room[2..HEADER_BYTES].copy_from_slice(&(block as u16).to_be_bytes());
        room[HEADER_BYTES..HEADER_BYTES + bytes.len()].copy_from_slice(bytes);
        HEADER_BYTES + bytes.len()
    }
}

#[inline]
fn acknowledge(block: u16, room: &mut [u8]) -> usize {
    room[..2].copy_from_slice(&[0, ACK]);
    room[2..HEADER_BYTES].copy_from_slice(&block.to_be_bytes());
    HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;

    fn file(bytes: usize, blksize: usize) -> File {
        let grant = if blksize == BLKSIZE_DEFAULT { Vec::new() } else { b"\0\x06blksize\x001000\0".to_vec() };
        File { contents: (0..bytes).map(|byte| byte as u8).collect(), blksize, grant }
    }

    fn answer(file: &File, datagram: &[u8]) -> Vec<u8> {
        let mut room = vec![0xee; file.answer_max()];
        let length = file.answer(datagram, &mut room);
        room.truncate(length);
        room
    }

    #[test]
    fn a_read_gets_every_block_in_order_and_ends_with_a_short_one() {
        for (bytes, blocks) in [(0, 1), (1, 1), (511, 1), (512, 2), (1_200, 3)] {
            let file = file(bytes, 512);
            let (mut asked, mut got) = (b"\0\x01f\0octet\0".to_vec(), Vec::new());
            for block in 1..=blocks {
                let data = answer(&file, &asked);
                assert_eq!(data[..4], [0, DATA, 0, block]);
                got.extend_from_slice(&data[4..]);
                asked = vec![0, ACK, 0, block];
            }
            assert_eq!(got, file.contents);
            assert!(answer(&file, &asked).is_empty(), "the last block is acknowledged");
        }
    }

    #[test]
    fn a_write_is_acknowledged_block_by_block() {
        let file = file(0, 512);
        assert_eq!(answer(&file, b"\0\x02f\0octet\0"), [0, ACK, 0, 0]);
        assert_eq!(answer(&file, b"\0\x03\x12\x34contents"), [0, ACK, 0x12, 0x34]);
    }

    #[test]
    fn another_block_size_is_granted_first() {
        let file = file(3_000, 1_000);
        for request in [b"\0\x01f\0octet\0blksize\x001000\0", b"\0\x02f\0octet\0blksize\x001000\0"] {
            assert_eq!(answer(&file, request), file.grant);
        }
        assert_eq!(answer(&file, &[0, ACK, 0, 0])[..4], [0, DATA, 0, 1]);
        assert_eq!(answer(&file, &[0, ACK, 0, 3]), [0, DATA, 0, 4], "3000 bytes end with an empty block");
    }

    #[test]
    fn one_socket_serves_few_and_the_kernel_spreads_many_over_several() {
        let any = "127.0.0.1:0".parse().unwrap();
        assert_eq!(listen(&SocketSource::Here, any, 1).unwrap().len(), 1);
        // No system grants a socket so much.
        let sockets = listen(&SocketSource::Here, any, usize::MAX).unwrap();
        assert_eq!(sockets.len(), SOCKETS_MAX);
        let clients: Vec<_> = (0..64).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for client in &clients {
            client.send_to(b"\0\x03\x12\x34contents", sockets[0].local_addr()).unwrap();
        }
        let mut batch = ReceiveBatch::new(clients.len(), HEADER_BYTES);
        let (start, mut peers, mut heard_by) = (Instant::now(), Vec::new(), BTreeSet::new());
        while peers.len() < clients.len() && start.elapsed() < Duration::from_secs(60) {
            for (index, socket) in sockets.iter().enumerate() {
                if batch.receive(socket).unwrap() > 0 {
                    heard_by.insert(index);
                    peers.extend(batch.iter().map(|arrived| (arrived.peer, arrived.payload.to_vec())));
                }
            }
        }
        assert!(heard_by.len() > 1);
        let mut due: Vec<_> =
            clients.iter().map(|client| (client.local_addr().unwrap(), vec![0, DATA, 0x12, 0x34])).collect();
        peers.sort();
        due.sort();
        assert_eq!(peers, due, "of each datagram as much as is looked at");
    }

    #[test]
    fn anything_else_is_not_answered() {
        let file = file(10, 512);
        for other in
            [&b""[..], b"\0", b"\0\x04", b"\0\x04\0", b"\0\x05\0\0no\0", b"\x01\x04\0\0", b"\0\x09\0\0"]
        {
            assert!(answer(&file, other).is_empty(), "{other:?}");
        }
    }
}
