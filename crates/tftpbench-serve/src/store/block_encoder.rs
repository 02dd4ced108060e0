//! A file as it goes out: its DATA datagrams, encoded one behind another a run at a time, so that a window is one piece
//! of memory. A run is read from the source at one go and released with its last block, for there may be 10,000
//! readers; a file on disk that several read keeps its runs for the others.

use std::sync::Arc;

use tftpbench_net::{DatagramRun, SendBatch};
use tftpbench_proto::{Agreed, HEADER_LEN, emit_data_header};

use super::Source;
use super::open_files::RunKey;
use crate::refusal::Refusal;

/// A run is a window, but at least this much of the file. Measured in lock-step at 512 bytes: with a pread(2) each,
/// those were a seventh of the server's CPU; 4 KiB at a time make it a twenty-fifth.
const RUN_BYTES_MIN: u64 = 4096;

/// Not more of a window at a time. Larger than what malloc(3) first takes as large: it then keeps such pieces instead
/// of giving them back to the kernel each time.
const RUN_BYTES_MAX: u64 = 256 * 1024;

/// What a transfer may hold while it waits: a run of blocks in lock-step, but not what a window has left over.
const HELD_BYTES_MAX: usize = 8 * 1024;

/// A source cut into blocks.
#[derive(Debug)]
pub(crate) struct BlockEncoder {
    source: Source,
    agreed: Agreed,
    /// Blocks of a run.
    blocks: u64,
    /// The run that is being sent, and its number.
    current: Option<(u64, Arc<DatagramRun>)>,
}

impl BlockEncoder {
    pub(crate) fn new(mut source: Source, agreed: Agreed) -> BlockEncoder {
        let blocks = run_blocks(&agreed);
        if let Source::Netascii(source) = &mut source {
            source.keep_marks(u64::from(agreed.windowsize).div_ceil(blocks));
        }
        BlockEncoder { source, agreed, blocks, current: None }
    }

    /// Bytes on the wire; `None` as long as no run has reached the end of a file whose length is not known before.
    pub(crate) fn length(&self) -> Option<u64> {
        self.source.length()
    }

    /// Where the block at `offset` lies, and its place there. All of the run is encoded, whatever is sent of it.
    pub(crate) fn at(&mut self, offset: u64) -> Result<(&Arc<DatagramRun>, usize), Refusal> {
        let index = offset / u64::from(self.agreed.blksize);
        let (number, place) = (index / self.blocks, (index % self.blocks) as usize);
        let run = match self.current.take() {
            Some((current, run)) if current == number => run,
            _ => self.run(number)?,
        };
        Ok((&self.current.insert((number, run)).1, place))
    }

    /// What comes before this place of the current run has been sent. It is not needed again unless something was lost.
    pub(crate) fn release(&mut self, place: usize) {
        self.current.take_if(|(_, run)| place >= run.count());
    }

    /// Nothing more is to be sent before the client's next ACK, which may be long in coming.
    pub(crate) fn trim(&mut self) {
        self.current.take_if(|(_, run)| run.bytes() > HELD_BYTES_MAX);
    }

    fn run(&mut self, number: u64) -> Result<Arc<DatagramRun>, Refusal> {
        let Agreed { blksize, rollover, .. } = self.agreed;
        let key = RunKey { blksize, rollover, blocks: self.blocks, number };
        if let Some(kept) = self.source.kept(&key)? {
            return Ok(kept);
        }
        let run = self.encode_run(number * self.blocks)?;
        self.source.keep(key, &run)?;
        Ok(run)
    }

    /// The run that begins with block `first`, counted from 0.
    fn encode_run(&mut self, first: u64) -> Result<Arc<DatagramRun>, Refusal> {
        let blksize = usize::from(self.agreed.blksize);
        let offset = first * u64::from(self.agreed.blksize);
        let rest = self.source.left_max(offset).ok_or(Refusal::CHANGED)?;
        let payload = rest.min(self.blocks * u64::from(self.agreed.blksize)) as usize;
        // The last block is shorter than the others, so it is empty where they hold all there is.
        let blocks = |payload: usize| (payload / blksize + 1).min(self.blocks as usize);
        let mut bytes = Vec::with_capacity(blocks(payload) * HEADER_LEN + payload);
        self.source.append(offset, payload, &mut bytes)?;
        let (payload, blocks) = (bytes.len(), blocks(bytes.len()));
        bytes.resize(blocks * HEADER_LEN + payload, 0);
        // From the last one on each block moves up, to behind its header.
        for block in (0..blocks).rev() {
            let (from, to) = (block * blksize, block * (HEADER_LEN + blksize));
            let end = payload.min(from + blksize);
            bytes.copy_within(from..end, to + HEADER_LEN);
            emit_data_header(&mut bytes[to..], self.agreed.block_number(first + block as u64 + 1));
        }
        Ok(DatagramRun::new(bytes, HEADER_LEN + blksize))
    }
}

/// As many blocks as some windows have, so that each lies in one run.
fn run_blocks(agreed: &Agreed) -> u64 {
    let (blksize, windowsize) = (u64::from(agreed.blksize.max(1)), u64::from(agreed.windowsize.max(1)));
    let datagram_bytes = HEADER_LEN as u64 + blksize;
    let most = (RUN_BYTES_MAX / datagram_bytes).max(1);
    if windowsize > most {
        // It at least is cut where its messages are.
        let max_segments = SendBatch::max_segments(HEADER_LEN + usize::from(agreed.blksize)) as u64;
        return most - most % max_segments.min(most);
    }
    (RUN_BYTES_MIN / blksize).div_ceil(windowsize).max(1) * windowsize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tftpbench_proto::Rollover;
    use tftpbench_testclient::{Folder, pattern};

    use super::*;
    use crate::paths::{FilePath, Root};
    use crate::store::disk::DiskFile;
    use crate::store::open_files::OpenFiles;
    use crate::store::stored_file::StoredFile;

    /// What opens the file `f` of a folder for readers that share it.
    fn opener(folder: &Folder) -> impl Fn() -> Source {
        let (files, root) = (Arc::<OpenFiles>::default(), Root::open(folder.path()).unwrap());
        move || {
            let path = FilePath::parse(b"f").unwrap();
            Source::Octet(StoredFile::Disk(DiskFile::open_shared(&files, &root, &path).unwrap()))
        }
    }

    fn agreed(blksize: u16, windowsize: u16) -> Agreed {
        Agreed { blksize, windowsize, ..Agreed::default() }
    }

    /// The datagram of the block with this index, counted from 1.
    fn datagram(encoder: &mut BlockEncoder, index: u64) -> Result<Vec<u8>, Refusal> {
        let offset = (index - 1) * u64::from(encoder.agreed.blksize);
        encoder.at(offset).map(|(run, place)| run.datagrams(place, 1).next().unwrap().to_vec())
    }

    fn expected(contents: &[u8], blksize: usize, index: usize) -> Vec<u8> {
        let start = (index - 1) * blksize;
        let payload = &contents[start..contents.len().min(start + blksize)];
        [&[0, 3, (index >> 8) as u8, index as u8], payload].concat()
    }

    #[test]
    fn every_block_of_any_file_is_its_header_and_its_payload_forwards_and_again() {
        let folder = Folder::new();
        for (size, blksize, windowsize) in [
            (0, 512, 1),
            (1, 512, 1),
            (4096, 512, 1),
            (100_001, 8, 1),
            (100_000, 8, 12_000),
            (20_480, 1024, 16),
            (300_000, 1428, 64),
            (300_000, 1428, 500),
            (20_000, 4097, 1),
            (65_464 * 3, 65_464, 2),
            (65_464 * 3 + 1, 65_464, 9),
        ] {
            let contents = pattern(size, 1);
            folder.put("f", &contents);
            let mut encoder = BlockEncoder::new(opener(&folder)(), agreed(blksize, windowsize));
            let blksize = usize::from(blksize);
            let last = size / blksize + 1;
            for index in (1..=last).chain([1, last, 1.max(last / 2)]) {
                let block = datagram(&mut encoder, index as u64).unwrap();
                assert!(block == expected(&contents, blksize, index), "{index} of {size} in {blksize}");
            }
        }
    }

    #[test]
    fn numbers_roll_over_as_agreed() {
        let folder = Folder::new();
        folder.put("f", &pattern(8 * 70_000, 1));
        for (rollover, number) in [(Rollover::Zero, [0, 0]), (Rollover::One, [0, 1])] {
            let mut encoder = BlockEncoder::new(opener(&folder)(), Agreed { rollover, ..agreed(8, 1) });
            assert_eq!(datagram(&mut encoder, 65_536).unwrap()[2..4], number, "{rollover:?}");
        }
    }

    #[test]
    fn a_window_lies_in_one_run_and_a_run_has_its_bounds() {
        for (blksize, windowsize, blocks) in [
            (512, 1, 8),
            (512, 3, 9),
            (512, 16, 16),
            (512, 64, 64),
            (1428, 64, 64),
            (8, 1, 512),
            (8192, 1, 1),
            (65_464, 1, 1),
            // 183 blocks are 256 KiB, and a message takes 45.
            (1428, 65_535, 180),
            (65_464, 64, 4),
        ] {
            assert_eq!(run_blocks(&agreed(blksize, windowsize)), blocks, "{blksize} in {windowsize}");
        }
    }

    #[test]
    fn readers_who_share_a_file_share_what_was_laid_out_of_it_until_the_last_one_goes() {
        let folder = Folder::new();
        folder.put("f", &pattern(100_000, 1));
        let open = opener(&folder);
        let reader = || BlockEncoder::new(open(), agreed(512, 16));
        let run = |encoder: &mut BlockEncoder| Arc::clone(encoder.at(0).unwrap().0);
        let (mut first, mut second) = (reader(), reader());
        let encoded = run(&mut first);
        assert!(Arc::ptr_eq(&encoded, &run(&mut second)));
        // In other windows a run is another one.
        assert!(!Arc::ptr_eq(&encoded, &run(&mut BlockEncoder::new(open(), agreed(512, 17)))));
        drop((first, second));
        assert_eq!(Arc::strong_count(&encoded), 1);
    }

    #[test]
    fn one_reader_alone_holds_a_run_at_most_and_none_behind_it() {
        let folder = Folder::new();
        folder.put("f", &pattern(100_000, 1));
        let mut encoder = BlockEncoder::new(opener(&folder)(), agreed(512, 16));
        let first = Arc::downgrade(encoder.at(0).unwrap().0);
        encoder.release(15);
        assert_eq!(first.strong_count(), 1);
        encoder.release(16);
        assert_eq!(first.strong_count(), 0);
        let second = Arc::downgrade(encoder.at(16 * 512).unwrap().0);
        encoder.at(32 * 512).unwrap();
        assert_eq!(second.strong_count(), 0);
    }

    #[test]
    fn nothing_large_is_held_while_the_client_is_silent() {
        let folder = Folder::new();
        folder.put("f", &pattern(100_000, 1));
        for (windowsize, is_held) in [(1, true), (3, true), (16, false)] {
            let mut encoder = BlockEncoder::new(opener(&folder)(), agreed(512, windowsize));
            let run = Arc::downgrade(encoder.at(0).unwrap().0);
            encoder.trim();
            assert_eq!(run.strong_count() > 0, is_held, "{windowsize}");
        }
    }

    /// What was read before is looked at before it goes together with what others read.
    #[test]
    fn a_file_is_not_made_of_two_states() {
        let folder = Folder::new();
        folder.put("f", &pattern(30_000, 1));
        let open = opener(&folder);
        let [mut early, mut late] = [(); 2].map(|()| BlockEncoder::new(open(), agreed(512, 1)));
        datagram(&mut early, 33).unwrap();
        drop(early);
        folder.put("f", &pattern(30_000, 2));
        let read = (1..=40).map(|index| datagram(&mut late, index));
        assert_eq!(read.take_while(Result::is_ok).count(), 32, "block 33 is kept, and of another state");
    }

    /// Two readers of the same state of a file both get all of that state, or an error.
    #[test]
    fn what_was_laid_out_outlives_a_change_and_what_was_not_is_refused() {
        let folder = Folder::new();
        let contents = pattern(100_000, 1);
        folder.put("f", &contents);
        let open = opener(&folder);
        let [mut first, mut second] = [(); 2].map(|()| BlockEncoder::new(open(), agreed(512, 16)));
        datagram(&mut first, 17).unwrap();
        folder.put("f", &pattern(99_999, 2));
        assert!(datagram(&mut second, 32).unwrap() == expected(&contents, 512, 32));
        assert_eq!(datagram(&mut second, 33), Err(Refusal::CHANGED));
        assert_eq!(datagram(&mut second, 33), Err(Refusal::CHANGED), "nothing of it was kept");
    }
}
