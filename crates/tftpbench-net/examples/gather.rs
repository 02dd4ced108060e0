//! What sending a block of a file costs, by where the kernel takes it from: the batch's arena, filled from a buffer or with
//! pread(2), or a mapping of the file. Only the sender's time counts. For people who change how servers read files:
//! `cargo run --release -p tftpbench-net --example gather`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example shows figures, and may panic")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tftpbench_net::{FileMapping, Gathered, ReceiveBatch, SendBatch, Socket, SocketOptions, clock};

/// The ways take turns, so that what disturbs the machine meets all of them.
const ROUNDS: usize = 40;
const ROUND_NS: u64 = 5_000_000;

/// As 64 files of 64 KiB: more than the caches next to a core hold.
const FILE_BYTES: usize = 4 << 20;
const PEERS: usize = 64;

/// As the servers read: small blocks ahead, a window at a time but at least a page.
const AHEAD_BYTES_MIN: usize = 4096;
const AHEAD_BYTES_MAX: usize = 65_536;
const SMALL_BYTES_MAX: usize = 2048;

/// Where a block comes from.
#[derive(Clone, Copy)]
enum Way {
    /// Copied from memory of ours.
    Buffer,
    /// Read from the file, some blocks ahead if they are small.
    Read,
    /// Gathered from a mapping.
    Mapped,
}

fn main() {
    println!("sender's ns a datagram, medians of {ROUNDS} rounds; ratios of neighbouring rounds to `read`");
    println!("blksize  burst             buffer      read    mapped   buffer/read  mapped/read");
    for blksize in [512, 1024, 1428, 8192, 65_464] {
        for (name, peers, window) in
            [("64 peers", PEERS, 1), ("window of 16", 1, 16), ("window of 64", 1, 64)]
        {
            let mut bench = Bench::new(blksize, peers, window);
            let mut rounds = [Way::Buffer, Way::Read, Way::Mapped].map(|_| Vec::new());
            for _ in 0..ROUNDS {
                for (way, costs) in [Way::Buffer, Way::Read, Way::Mapped].into_iter().zip(&mut rounds) {
                    costs.push(bench.round(way));
                }
            }
            let ratios = [0, 2].map(|way| median(rounds[way].iter().zip(&rounds[1]).map(|(a, b)| a / b)));
            let [buffer, read, mapped] = rounds.map(|costs| median(costs.into_iter()));
            println!(
                "{blksize:>7}  {name:<12} {buffer:>11.0} {read:>9.0} {mapped:>9.0} {:>13.3} {:>12.3}",
                ratios[0], ratios[1]
            );
        }
    }
    println!(
        "us to map a file, have it read once by the kernel and unmap it, beside the same with a mapping that stays"
    );
    for kib in [64, 256, 1024] {
        println!("{kib:>7} KiB {:>11.1}", mapping_ns(kib << 10) / 1e3);
    }
}

/// What a mapping of its own costs a reader.
fn mapping_ns(file_bytes: usize) -> f64 {
    let file = temporary(&vec![1; file_bytes]);
    let map = || FileMapping::new(&file, file_bytes as u64).unwrap();
    let (sender, receiver, kept) = (bound(), bound(), map());
    let mut batch = SendBatch::new(1, 4);
    let mut send_from = |mapping: &Arc<FileMapping>| {
        for offset in (0..file_bytes).step_by(4096) {
            let fill = |_: &mut [u8]| Gathered { head_bytes: 4, body: mapping.part(offset as u64, 4096) };
            batch.push_gathered(receiver.local_addr(), 4, fill);
            batch.flush(&sender).unwrap();
        }
    };
    send_from(&kept);
    let mut costs = Vec::new();
    for _ in 0..300 {
        let start_ns = clock::monotonic_ns();
        send_from(&kept);
        let kept_ns = clock::monotonic_ns() - start_ns;
        send_from(&map());
        costs.push((clock::monotonic_ns() - start_ns - kept_ns) as f64 - kept_ns as f64);
    }
    median(costs.into_iter())
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

struct Bench {
    blksize: usize,
    window: usize,
    sender: Socket,
    readers: Vec<Reader>,
    batch: SendBatch,
    arrivals: ReceiveBatch,
    file: File,
    contents: Vec<u8>,
    mapping: Arc<FileMapping>,
}

/// One that is sent the file, from an offset of its own on.
struct Reader {
    socket: Socket,
    offset: usize,
    ahead: Vec<u8>,
    ahead_at: usize,
}

impl Bench {
    fn new(blksize: usize, peers: usize, window: usize) -> Bench {
        let contents: Vec<u8> = (0..FILE_BYTES).map(|at| ((at * 31) >> 3) as u8).collect();
        let file = temporary(&contents);
        let mapping = FileMapping::new(&file, FILE_BYTES as u64).unwrap();
        let readers = (0..peers).map(|peer| Reader::new(peer * (FILE_BYTES / PEERS))).collect();
        Bench {
            blksize,
            window,
            sender: bound(),
            readers,
            batch: SendBatch::new(PEERS, 1 << 20),
            arrivals: ReceiveBatch::coalescing(PEERS, blksize + 4),
            file,
            contents,
            mapping,
        }
    }

    /// Nanoseconds a datagram.
    fn round(&mut self, way: Way) -> f64 {
        let (mut spent_ns, mut datagrams) = (0, 0);
        while spent_ns < ROUND_NS {
            let start_ns = clock::monotonic_ns();
            for index in 0..self.readers.len() {
                for _ in 0..self.window {
                    self.push(index, way);
                }
            }
            self.batch.flush(&self.sender).unwrap();
            spent_ns += clock::monotonic_ns() - start_ns;
            datagrams += self.readers.len() * self.window;
            for reader in &self.readers {
                while self.arrivals.receive(&reader.socket).unwrap() > 0 {}
            }
        }
        spent_ns as f64 / datagrams as f64
    }

    fn push(&mut self, index: usize, way: Way) {
        let reader = &mut self.readers[index];
        if reader.offset + self.blksize > FILE_BYTES {
            reader.offset = 0;
        }
        let (offset, peer, bytes) = (reader.offset, reader.socket.local_addr(), 4 + self.blksize);
        reader.offset += self.blksize;
        loop {
            let write = |room: &mut [u8]| {
                room[..4].copy_from_slice(&[0, 3, 0, offset as u8]);
                match way {
                    Way::Buffer => room[4..].copy_from_slice(&self.contents[offset..][..self.blksize]),
                    Way::Read => reader.read(&self.file, offset, self.window, &mut room[4..]),
                    Way::Mapped => {
                        let body = self.mapping.part(offset as u64, self.blksize);
                        return Gathered { head_bytes: 4, body };
                    }
                }
                Gathered { head_bytes: bytes, body: None }
            };
            if self.batch.push_gathered(peer, bytes, write) {
                return;
            }
            self.batch.flush(&self.sender).unwrap();
        }
    }
}

impl Reader {
    fn new(offset: usize) -> Reader {
        Reader { socket: bound(), offset, ahead: Vec::new(), ahead_at: 0 }
    }

    fn read(&mut self, file: &File, offset: usize, window: usize, room: &mut [u8]) {
        if room.len() > SMALL_BYTES_MAX {
            return file.read_exact_at(room, offset as u64).unwrap();
        }
        let has = |reader: &Reader| {
            reader.ahead_at <= offset && offset + room.len() <= reader.ahead_at + reader.ahead.len()
        };
        if !has(self) {
            let bytes =
                (window * room.len()).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX).min(FILE_BYTES - offset);
            self.ahead.resize(bytes, 0);
            self.ahead_at = offset;
            file.read_exact_at(&mut self.ahead, offset as u64).unwrap();
        }
        room.copy_from_slice(&self.ahead[offset - self.ahead_at..][..room.len()]);
    }
}

fn bound() -> Socket {
    let options = SocketOptions {
        receive_coalesced: true,
        receive_buffer_bytes: 4 << 20,
        send_buffer_bytes: 4 << 20,
        ..SocketOptions::default()
    };
    Socket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap()
}

/// A file without a name.
fn temporary(contents: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("tftpbench-gather-{}", std::process::id()));
    std::fs::write(&path, contents).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}
