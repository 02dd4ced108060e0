//! A plain TFTP client over a blocking socket, written down from the RFCs and not over our machines, so that a fault in
//! those cannot hide on both sides. It loses nothing and never sends again: loopback does not lose single datagrams.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use tftpbench_net::{Socket, SocketOptions};
use tftpbench_proto::{ErrorCode, Packet, emit_ack, emit_data_header, emit_error};

/// Opcode of a read request.
pub const RRQ: u8 = 1;
/// Opcode of a write request.
pub const WRQ: u8 = 2;

/// Long enough for an answer on loopback, short enough to wait for the absence of one.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(50);

/// Longest wait for anything that must come.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// An ERROR of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Its code.
    pub code: u16,
    /// Its text.
    pub message: String,
}

/// One socket that talks to one server.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

/// A datagram from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The port that it came from: the server's TID.
    pub tid: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// What it says.
    pub fn packet(&self) -> Packet<'_> {
        Packet::parse(&self.bytes).unwrap()
    }

    /// The code, if it is an ERROR.
    pub fn error_code(&self) -> Option<u16> {
        match self.packet() {
            Packet::Error { code, .. } => Some(code.0),
            _ => None,
        }
    }
}

/// A request's bytes; options are names and values.
pub fn request(opcode: u8, name: impl AsRef<[u8]>, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, opcode];
    let options = options.iter().flat_map(|&(name, value)| [name.as_bytes(), value.as_bytes()]);
    for word in [name.as_ref(), mode.as_bytes()].into_iter().chain(options) {
        bytes.extend_from_slice(word);
        bytes.push(0);
    }
    bytes
}

/// A DATA's bytes.
pub fn data(block: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    emit_data_header(&mut bytes, block);
    bytes.extend_from_slice(payload);
    bytes
}

/// Bytes that differ from block to block and from file to file.
pub fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

impl Client {
    /// A client on a free loopback port of the server's family.
    pub fn new(server: SocketAddr) -> Client {
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        // A buffer for some 500 small datagrams, so that a window of hundreds is not lost.
        let options = SocketOptions { receive_buffer_bytes: 1 << 20, ..SocketOptions::default() };
        let socket = Socket::bind(local, &options).unwrap().as_fd().try_clone_to_owned().unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        Client { socket, server }
    }

    /// Where it sends from.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends to the listening port.
    pub fn ask(&self, datagram: &[u8]) {
        self.send(self.server, datagram);
    }

    /// Sends anywhere.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.socket.send_to(datagram, to).unwrap();
    }

    /// Sends to a port by the broadcast address of the loopback.
    pub fn broadcast(&self, port: u16, datagram: &[u8]) {
        self.socket.set_broadcast(true).unwrap();
        self.send((Ipv4Addr::new(127, 255, 255, 255), port).into(), datagram);
    }

    /// Sends an ACK.
    pub fn ack(&self, to: SocketAddr, block: u16) {
        let mut bytes = [0; 4];
        emit_ack(&mut bytes, block);
        self.send(to, &bytes);
    }

    /// Sends an ERROR 0.
    pub fn error(&self, to: SocketAddr) {
        let mut bytes = [0; 64];
        let length = emit_error(&mut bytes, ErrorCode::NOT_DEFINED, "given up");
        self.send(to, &bytes[..length]);
    }

    /// The next datagram, which must come.
    pub fn receive(&self) -> Answer {
        self.try_receive(ANSWER_MAX).expect("the server does not answer")
    }

    /// The next datagram, if it comes in time.
    pub fn try_receive(&self, timeout: Duration) -> Option<Answer> {
        let mut bytes = vec![0; 65_536];
        self.socket.set_read_timeout(Some(timeout)).unwrap();
        let (length, tid) = loop {
            match self.socket.recv_from(&mut bytes) {
                Ok(received) => break received,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    _ => panic!("the client's socket: {error}"),
                },
            }
        };
        bytes.truncate(length);
        Some(Answer { tid, bytes })
    }

    /// The code of the ERROR that must come next.
    pub fn receive_error(&self) -> u16 {
        let answer = self.receive();
        answer.error_code().unwrap_or_else(|| panic!("no ERROR but {:?}", answer.packet()))
    }

    /// The DATA that must come next: TID, block and payload.
    pub fn receive_data(&self) -> (SocketAddr, u16, Vec<u8>) {
        let answer = self.receive();
        match answer.packet() {
            Packet::Data { block, payload } => (answer.tid, block, payload.to_vec()),
            other => panic!("no DATA but {other:?}"),
        }
    }

    /// The ACK that must come next: TID and block.
    pub fn receive_ack(&self) -> (SocketAddr, u16) {
        let answer = self.receive();
        match answer.packet() {
            Packet::Ack { block } => (answer.tid, block),
            other => panic!("no ACK but {other:?}"),
        }
    }

    /// The OACK that must come next: TID, and its options as text.
    pub fn receive_oack(&self) -> (SocketAddr, Vec<(String, String)>) {
        let answer = self.receive();
        let Packet::Oack(options) = answer.packet() else { panic!("no OACK but {:?}", answer.packet()) };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (answer.tid, options.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    /// Reads a whole file in octet mode.
    pub fn read(&self, name: &str, options: &[(&str, &str)]) -> Result<Vec<u8>, Denied> {
        self.read_as("octet", name, options)
    }

    /// Reads a whole file.
    pub fn read_as(&self, mode: &str, name: &str, options: &[(&str, &str)]) -> Result<Vec<u8>, Denied> {
        self.ask(&request(RRQ, name, mode, options));
        let mut agreed = Agreed::default();
        let (mut file, mut index) = (Vec::new(), 0_u64);
        loop {
            let answer = self.receive();
            match answer.packet() {
                Packet::Oack(options) => {
                    agreed = Agreed::of(options.iter());
                    self.ack(answer.tid, 0);
                }
                Packet::Data { block, payload } if block == agreed.wire(index + 1) => {
                    index += 1;
                    file.extend_from_slice(payload);
                    let is_last = payload.len() < agreed.blksize;
                    if is_last || index % agreed.windowsize == 0 {
                        self.ack(answer.tid, block);
                    }
                    if is_last {
                        return Ok(file);
                    }
                }
                Packet::Error { code, message } => return Err(denied(code, message)),
                other => panic!("after block {index} came {other:?}"),
            }
        }
    }

    /// Writes a whole file in octet mode.
    pub fn write(&self, name: &str, file: &[u8], options: &[(&str, &str)]) -> Result<(), Denied> {
        self.write_as("octet", name, file, options)
    }

    /// Writes a whole file.
    pub fn write_as(
        &self,
        mode: &str,
        name: &str,
        file: &[u8],
        options: &[(&str, &str)],
    ) -> Result<(), Denied> {
        self.ask(&request(WRQ, name, mode, options));
        let (mut agreed, mut acked) = (Agreed::default(), 0);
        loop {
            let answer = self.receive();
            match answer.packet() {
                Packet::Oack(options) => agreed = Agreed::of(options.iter()),
                Packet::Ack { block } => assert_eq!(block, agreed.wire(acked)),
                Packet::Error { code, message } => return Err(denied(code, message)),
                other => panic!("after block {acked} came {other:?}"),
            }
            let last = (file.len() / agreed.blksize) as u64 + 1;
            if acked == last {
                return Ok(());
            }
            let window_end = last.min(acked + agreed.windowsize);
            for index in acked + 1..=window_end {
                let start = (index - 1) as usize * agreed.blksize;
                let payload = &file[start..file.len().min(start + agreed.blksize)];
                self.send(answer.tid, &data(agreed.wire(index), payload));
            }
            acked = window_end;
        }
    }
}

fn denied(code: ErrorCode, message: &[u8]) -> Denied {
    Denied { code: code.0, message: String::from_utf8_lossy(message).into_owned() }
}

struct Agreed {
    blksize: usize,
    windowsize: u64,
    rolls_to_one: bool,
}

impl Default for Agreed {
    fn default() -> Agreed {
        Agreed { blksize: 512, windowsize: 1, rolls_to_one: false }
    }
}

impl Agreed {
    fn of<'a>(options: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Agreed {
        let mut agreed = Agreed::default();
        for (name, value) in options {
            let value: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
            match name {
                b"blksize" => agreed.blksize = value as usize,
                b"windowsize" => agreed.windowsize = value,
                b"rollover" => agreed.rolls_to_one = value == 1,
                _ => {}
            }
        }
        agreed
    }

    fn wire(&self, index: u64) -> u16 {
        match self.rolls_to_one {
            true if index > 0 => ((index - 1) % 65_535 + 1) as u16,
            _ => (index % 65_536) as u16,
        }
    }
}
