//! The null server: answers every frame of TFTP at once, by rings, without a socket, a transfer or any state but the one
//! file that it has. It stands for a server that costs nothing, so that the generator before it is what is full.
//!
//! Which block a client wants next follows from the frame that it sent. Nothing is sent again or refused: a
//! lost frame is the client's to send again. The address of its frames is no interface's, so that the IP stack beside it
//! drops them at once. It must never run where its CPU is not its own: it polls without sleeping.

use std::net::IpAddr;

use tftpbench_net::{Frame, RingLink, RingReceiver, RingSender, Stop, Subnet, clock, cpus};

use crate::config::{CeilingError, HEADER_BYTES};

/// RFC 1350 section 5, RFC 2347.
const READ: u8 = 1;
const WRITE: u8 = 2;
const DATA: u8 = 3;
const ACK: u8 = 4;
const OACK: u8 = 6;
/// RFC 1350 section 4: what a block has unless it is asked for otherwise (RFC 2348).
const BLKSIZE_DEFAULT: usize = 512;
/// Names and options of a request, RFC 2347.
const REQUEST_BYTES_MAX: usize = 512;
/// A stop is heard of after so many looks at an empty ring at the latest.
const LOOKS: usize = 1_000;

/// One that answers to an address, until it is stopped.
pub struct NullServer {
    receiver: RingReceiver,
    sender: RingSender,
    file: File,
    cpu: Option<usize>,
}

/// What it was opened with.
#[derive(Clone, Debug)]
pub struct NullServerConfig {
    /// The way of frames: `ours` is where requests go to, `theirs` where answers do.
    pub link: RingLink,
    /// Where it listens, on every port.
    pub address: IpAddr,
    /// What every read gets: of fewer than 65,535 blocks.
    pub contents: Vec<u8>,
    /// Bytes of a block.
    pub blksize: usize,
    /// Frames that may wait.
    pub waiting: usize,
    /// Where it runs; none leaves it to the scheduler.
    pub cpu: Option<usize>,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Frames that arrived.
    pub frames: u64,
    /// Time since its start.
    pub elapsed_ns: u64,
    /// Of that, time in which no frame was there.
    pub idle_ns: u64,
    /// Frames that found no room.
    pub drops: u64,
}

struct File {
    contents: Vec<u8>,
    blksize: usize,
    /// What grants the block size; empty where it is the usual one, for which no client asks.
    grant: Vec<u8>,
}

impl NullServer {
    /// Frames that come from now on are answered once it runs.
    pub fn open(config: NullServerConfig) -> Result<NullServer, CeilingError> {
        let blksize = config.blksize;
        if blksize == 0 || config.contents.len() / blksize >= usize::from(u16::MAX) - 1 {
            return Err(CeilingError::Config("contents: must be of fewer than 65535 blocks"));
        }
        let bytes = (blksize + HEADER_BYTES).max(REQUEST_BYTES_MAX);
        let here = Subnet::new(config.address, 0);
        let receiver = RingReceiver::open(&config.link, here, (0, 1), config.waiting, bytes)
            .map_err(CeilingError::os("cannot open a ring to receive by"))?;
        let mut sender = RingSender::open(&config.link, config.address, bytes)
            .map_err(CeilingError::os("cannot open a ring to send by"))?;
        // As a server's socket does on such a link.
        sender.leave_checksums();
        let grant = match blksize {
            BLKSIZE_DEFAULT => Vec::new(),
            other => [&[0, OACK], format!("blksize\0{other}\0").as_bytes()].concat(),
        };
        let file = File { contents: config.contents, blksize, grant };
        Ok(NullServer { receiver, sender, file, cpu: config.cpu })
    }

    /// Answers until a stop is asked for.
    pub fn run(mut self, stop: &Stop) -> Result<Answered, CeilingError> {
        if let Some(cpu) = self.cpu {
            cpus::pin_current_thread(&[cpu]).map_err(CeilingError::os("cannot pin a thread to its CPU"))?;
        }
        let start_ns = clock::monotonic_ns();
        let mut answered = Answered::default();
        while stop.requests() == 0 {
            answered.frames += self.answer_all().map_err(CeilingError::os("cannot send"))?;
            answered.idle_ns += self.wait();
        }
        answered.elapsed_ns = clock::monotonic_ns() - start_ns;
        answered.drops = self.receiver.drops();
        Ok(answered)
    }

    /// What has arrived, until nothing waits.
    #[inline]
    fn answer_all(&mut self) -> std::io::Result<u64> {
        let (mut frames, len_max) = (0, self.file.answer_max());
        while self.receiver.receive() > 0 {
            for arrived in self.receiver.iter() {
                let Frame::Datagram { from, to, payload, .. } = arrived.frame else { continue };
                if !self.sender.has_room() {
                    self.sender.flush()?;
                }
                let answer = |room: &mut [u8]| self.file.answer(payload, room);
                self.sender.push(to, from, len_max, answer);
                frames += 1;
            }
        }
        if !self.sender.is_empty() {
            self.sender.flush()?;
        }
        Ok(frames)
    }

    /// Looks at the ring until a frame is there, or often enough for a stop to be looked at. Returns how long none was.
    #[inline]
    fn wait(&self) -> u64 {
        if self.receiver.is_ready() {
            return 0;
        }
        let start_ns = clock::monotonic_ns();
        for _ in 0..LOOKS {
            if self.receiver.is_ready() {
                break;
            }
            std::hint::spin_loop();
        }
        clock::monotonic_ns() - start_ns
    }
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
    fn anything_else_is_not_answered() {
        let file = file(10, 512);
        for other in
            [&b""[..], b"\0", b"\0\x04", b"\0\x04\0", b"\0\x05\0\0no\0", b"\x01\x04\0\0", b"\0\x09\0\0"]
        {
            assert!(answer(&file, other).is_empty(), "{other:?}");
        }
    }
}
